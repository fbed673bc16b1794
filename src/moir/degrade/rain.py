"""Rain: the streaks of the MiOIR recipe, layered ones, dense ones as in Rain100H, and rain as photographs have it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from moir.degrade.base import Params, check_batch, choose, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import convolve, gaussian_kernel, line_kernel, seeded, smooth_field, stack_kernels
from moir.degrade.severity import draw


@register_params
@dataclass(frozen=True)
class RainParams(Params):
    """Parameters of rain.

    Attributes:
        amount: Streak count value of the MiOIR recipe: 0.01 * amount / 256 of all pixels start a streak.
        angle: Tilt from the vertical, degrees.
        length: Streak length in pixels.
        width: Width of the Gaussian that softens a streak, pixels (odd kernel size of the recipe).
        opacity: Brightness of the brightest streak (``natural``: how much of the picture it hides), 0..1.
        layers: Layered kinds only: how many layers, each finer and fainter than the one before.
        spread: Layered kinds only: how much the angle differs from layer to layer, degrees.
        cover: Layered kinds only: share of the picture that the first layer covers at amount 100.
        veil: Strength of the grey veil of rain too distant to be seen as streaks, 0..1.
        veil_light: Brightness of the veil, 0..1.
        light: ``natural`` only: colour of the drops and of the veil, factors on red, green and blue.
        drop_light: ``natural`` only: brightness of the drops, 0..1.
        bead: ``natural`` only: how uneven a streak is along its length, 0..1.
        soft: ``natural`` only: how far out of focus the nearest layer is, 0 (sharp) to 1.
    """

    type: ClassVar[str] = "rain"
    kinds: ClassVar[tuple[str, ...]] = ("mioir", "streaks", "dense", "natural")
    severity_field: ClassVar[str] = "amount"

    amount: float
    angle: float
    length: float
    width: float
    opacity: float = 1.0
    layers: int = 1
    spread: float = 0.0
    cover: float = 0.12
    veil: float = 0.0
    veil_light: float = 0.7
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    drop_light: float = 1.0
    bead: float = 0.0
    soft: float = 0.0


class Rain:
    """y = x + R, optionally behind a veil; R is grey and at least 0. ``natural``: y = x (1 - m) + c m.

    A drop that moves during the exposure hides a part m of the background and adds the light c of its surroundings: it
    brightens a dark wall and hardly shows before a bright sky (Garg and Nayar 2007). Judged on real photographs, most
    streaks are thin, faint and of uneven brightness; short ticks, curtains of long soft streaks, and near drops out of
    focus all occur.
    """

    type = "rain"
    kinds = RainParams.kinds
    weights: ClassVar[dict[str, float]] = {"mioir": 0.2, "streaks": 0.2, "dense": 0.2, "natural": 0.4}

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> RainParams:
        """See :class:`moir.degrade.base.Degradation`."""
        kind = pick_kind(kind, self.weights, self.type, generator)
        amount, seed = draw(self.type, level, generator), new_seed(generator)
        angle = uniform(generator, -45, 45)
        if kind == "mioir":
            length = uniform(generator, 20, 40)
            if level in ("inside", "outside"):  # as published
                width = float(choose(generator, {"3": 1, "5": 1, "7": 1, "9": 1, "11": 1}))
                return RainParams(kind, seed, amount, angle, length, width)
            # Bars 9 and 11 px wide, all white, are in no photograph.
            width = float(choose(generator, {"3": 2, "5": 2, "7": 1}))
            opacity = min(1.0, uniform(generator, 0.35, 0.65) + 0.45 * amount / 100)
            return RainParams(kind, seed, amount, angle, length, width, opacity)
        # Heavier rain has more and brighter layers and more veil.
        heavy = min(amount / 100, 1.5)
        veil = uniform(generator, 0, 0.35 * heavy) if uniform(generator, 0, 1) < 0.5 else 0.0
        veil_light = uniform(generator, 0.5, 0.9)
        if kind == "natural":
            return self._natural(amount, angle, seed, generator)
        if kind == "dense":  # Rain100H: long, nearly parallel, translucent streaks over most of the picture
            return RainParams(
                kind,
                seed,
                amount,
                angle=angle * uniform(generator, 0.2, 1),
                length=uniform(generator, 30, 100),
                width=uniform(generator, 1, 3.5),
                opacity=uniform(generator, 0.3, 0.65) * (0.5 + 0.5 * min(heavy, 1)),
                layers=int(uniform(generator, 2, 5)),
                spread=uniform(generator, 1, 8),
                cover=uniform(generator, 0.3, 0.8),
                veil=veil,
                veil_light=veil_light,
            )
        return RainParams(
            kind,
            seed,
            amount,
            angle,
            length=uniform(generator, 12, 25 + 35 * heavy),
            width=float(choose(generator, {"1": 2, "2": 2, "3": 2, "5": 1})),
            opacity=min(1.0, uniform(generator, 0.3, 0.6) + 0.4 * heavy),
            layers=1 + round(uniform(generator, 0, 2.6 * min(heavy, 1))),
            spread=uniform(generator, 0, 25 * heavy),
            veil=veil,
            veil_light=veil_light,
        )

    @staticmethod
    def _natural(amount: float, angle: float, seed: int, generator: torch.Generator) -> RainParams:
        heavy = min(amount / 100, 1.5)
        # Most rain falls nearly straight. Lengths go from ticks (short exposure, far away) to curtains.
        form = choose(generator, {"ticks": 0.3, "streaks": 0.4, "curtains": 0.3})
        low, high = {"ticks": (5, 14), "streaks": (14, 45), "curtains": (45, 110)}[form]
        few, many = {"ticks": (0.15, 2.0), "streaks": (0.15, 1.8), "curtains": (0.5, 2.4)}[form]
        faint, strong = {"ticks": (0.7, 1.0), "streaks": (0.45, 0.95), "curtains": (0.3, 0.7)}[form]
        warm = uniform(generator, -0.06, 0.06)
        veiled = uniform(generator, 0, 1) < 0.6
        return RainParams(
            "natural",
            seed,
            amount,
            angle * uniform(generator, 0, 1),
            length=low * (high / low) ** uniform(generator, 0, 1),
            width=uniform(generator, 1.2, 3.5),
            opacity=uniform(generator, faint, strong) * (0.55 + 0.45 * min(heavy, 1)),
            layers=int(uniform(generator, 1, 4)),
            spread=uniform(generator, 0, 6),
            cover=few * (many / few) ** uniform(generator, 0, 1),
            veil=uniform(generator, 0.1, 0.5) * heavy if veiled else 0.0,
            veil_light=uniform(generator, 0.35, 0.9),
            light=(1 + warm, 1.0, 1 - warm),
            drop_light=uniform(generator, 0.65, 1.0),
            bead=uniform(generator, 0, 0.8),
            soft=uniform(generator, 0.2, 1) if uniform(generator, 0, 1) < 0.4 else 0.0,
        )

    def apply(self, images: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`."""
        records = check_batch(images, params, RainParams)
        return torch.stack([self._one(x, p) for x, p in zip(images, records, strict=True)]).clamp(0, 1)

    def _one(self, x: torch.Tensor, p: RainParams) -> torch.Tensor:
        height, width = x.shape[-2:]
        generator = seeded(p.seed, x.device)
        if p.kind == "natural":
            return _natural_rain(x, p, generator)
        streaks = mioir_streaks if p.kind == "mioir" else layered_streaks
        layer = streaks(height, width, p, generator)
        if p.veil > 0:
            density = p.veil * (0.7 + 0.3 * smooth_field(height, width, generator, cells=2))
            x = x * (1 - density) + p.veil_light * density
        return x + layer


def mioir_streaks(height: int, width: int, p: RainParams, generator: torch.Generator) -> torch.Tensor:
    """The rain layer of the MiOIR data scripts, (H, W) in [0, opacity].

    Uniform noise in [0, 256) keeps its brightest 0.01 * amount / 256 part, is sharpened by a small cross filter,
    smeared by a line of ``length`` (shortened to ``1 - length / 100`` when it is turned, as in the recipe), and
    stretched to the full range. The line is drawn analytically here, not by warping a diagonal.
    """
    field = torch.rand(height, width, generator=generator, device=generator.device) * 256
    field = torch.where(field >= 256 - 0.01 * p.amount, field, torch.zeros_like(field))
    cross = torch.tensor([[0, 0.1, 0], [0.1, 8, 0.1], [0, 0.1, 0]], device=field.device)
    field = convolve(field[None, None], cross[None], reflect=False).clamp(0, 255)
    visible = min(
        p.length * math.sqrt(2) * (1 - p.length / 100),
        p.length / max(abs(math.cos(math.radians(p.angle))), 0.5),
    )
    # OpenCV's Gaussian of kernel size w has this standard deviation when none is given.
    sigma = 0.3 * ((p.width - 1) * 0.5 - 1) + 0.8
    smear = line_kernel(visible, sigma, p.angle, field.device)
    rain = convolve(field, smear[None], reflect=False)[0, 0].clamp_min(0)
    return p.opacity * rain / rain.max().clamp_min(1e-6)


def layered_streaks(height: int, width: int, p: RainParams, generator: torch.Generator) -> torch.Tensor:
    """Streaks of several distances, (H, W) in [0, opacity * layers]; nearer ones are longer, wider and fewer."""
    rain = torch.zeros(height, width, device=generator.device)
    for index in range(p.layers):
        shrink = 0.7**index
        tilt = p.angle + p.spread * float(torch.randn((), generator=generator, device=generator.device))
        length, thickness = max(4.0, p.length * shrink), max(0.35, p.width * 0.3 * shrink)
        # Enough starts that streaks cover `cover` of the picture: starts * area of one streak.
        cover = p.cover * p.amount / 100 * (1 + 0.5 * index)
        density = cover / (length * (1 + 2 * thickness))
        starts = torch.rand(height, width, generator=generator, device=rain.device)
        bright = 0.3 + 0.7 * torch.rand(height, width, generator=generator, device=rain.device)
        seeds = torch.where(starts < density, bright, torch.zeros_like(bright))
        line = line_kernel(length, thickness, tilt, rain.device)
        fade = gaussian_kernel(length / 2.2, rain.device)  # streaks fade towards their ends
        side = min(line.shape[-1], fade.shape[-1])
        line, fade = (_centre(kernel, side) for kernel in (line, fade))
        line = line * fade / fade.max()
        layer = convolve(seeds[None, None], line[None], reflect=False)[0, 0].clamp(0, 1)
        rain = rain + p.opacity * 0.75**index * layer
    return rain


def _natural_rain(x: torch.Tensor, p: RainParams, generator: torch.Generator) -> torch.Tensor:
    height, width = x.shape[-2:]
    mask = natural_streaks(height, width, p, generator)
    colour = torch.tensor(p.light, device=x.device)[:, None, None]
    if p.veil > 0:
        density = p.veil * (0.6 + 0.4 * smooth_field(height, width, generator, cells=2, octaves=2))
        x = x + density * (p.veil_light * colour - x)
    return x + mask * (p.drop_light * colour - x)


def natural_streaks(height: int, width: int, p: RainParams, generator: torch.Generator) -> torch.Tensor:
    """How much of the picture drops of several distances hide, (H, W) in [0, 1]; farther ones are more and finer."""
    device = generator.device
    kernels, densities, opacities = [], [], []
    for index in range(p.layers):
        shrink = 0.6**index
        # A near drop out of focus is wide and pale: the same light over more pixels.
        wide = 1 + 2.5 * p.soft if index == 0 else 1.0
        # Shorter than 6 px, drops would look like noise.
        length = max(min(p.length, 6.0), p.length * shrink)
        thickness = max(0.4, p.width * 0.3 * shrink) * wide
        tilt = p.angle + p.spread * float(torch.randn((), generator=generator, device=device))
        kernels.append(_tapered(length, thickness, tilt, device))
        cover = p.cover * p.amount / 100 * (1 + index)
        densities.append(cover / (length * (1 + 2 * thickness)))
        opacities.append(p.opacity * 0.85**index * wide**-0.7)
    shape = (p.layers, height, width)
    draw_, bright = torch.rand(2, *shape, generator=generator, device=device)
    # Many faint drops for each bright one.
    density, opacity = (torch.tensor(v, device=device)[:, None, None] for v in (densities, opacities))
    seeds = torch.where(draw_ < density, 0.25 + 0.75 * bright * bright, torch.zeros_like(bright))
    layers = convolve(seeds[:, None], stack_kernels(kernels), reflect=False)[:, 0]
    hidden = (opacity * layers.clamp(0, 1) * (1 - p.bead * bright)).clamp(0, 1)
    return 1 - (1 - hidden).prod(0)


def _tapered(length: float, thickness: float, tilt: float, device: torch.device) -> torch.Tensor:
    """A streak that fades towards its ends, (K, K), peak 1."""
    line = line_kernel(length, thickness, tilt, device)
    axis = torch.arange(line.shape[-1], device=device) - line.shape[-1] // 2
    square = (axis * axis).float()
    return line * torch.exp(-2.4 / length**2 * (square[:, None] + square))


def _centre(kernel: torch.Tensor, side: int) -> torch.Tensor:
    cut = (kernel.shape[-1] - side) // 2
    return kernel[cut : cut + side, cut : cut + side]
