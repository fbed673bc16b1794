"""Low light: the UniRestorer paper's darkening of the illumination map, with or without noise, and a short exposure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from moir.degrade.base import Params, check_batch, check_map, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import seeded, smooth_field
from moir.degrade.noise import GAMMA, iso_noise
from moir.degrade.sensor import sensor_noise, to_display, to_linear
from moir.degrade.severity import draw


@register_params
@dataclass(frozen=True)
class LowLightParams(Params):
    """Parameters of low light.

    Attributes:
        gamma: Darkening exponent of the illumination.
        smooth: Size of the neighbourhood of the illumination map, as a fraction of the longer side.
        exposure: ``camera`` and ``exposure``: loss of light, in stops (factor 2 ** -exposure in linear light); with
            ``camera`` it comes on top of the exponent, with ``exposure`` it is all.
        noise: ``camera`` and ``exposure``: standard deviation of the sensor noise at mid-grey, 8-bit levels.
        shade: ``exposure`` only: further loss in the darkest place of an unevenly lit scene, stops.
        keep: ``exposure`` only: how much of the loss bright regions are spared (sky, lamps), 0..1.
        balance: ``exposure`` only: error of the white balance, factors on red, green and blue in linear light.
        blotch: ``exposure`` only: size of the patches of the colour noise, pixels.
    """

    type: ClassVar[str] = "lowlight"
    kinds: ClassVar[tuple[str, ...]] = ("paper", "camera", "exposure")
    severity_field: ClassVar[str] = "gamma"

    gamma: float
    smooth: float
    exposure: float = 0.0
    noise: float = 0.0
    shade: float = 0.0
    keep: float = 0.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blotch: float = 0.0


class LowLight:
    """y = (x / L) L^gamma, with an illumination map L (UniRestorer, after OneRestore), or a camera's loss of exposure.

    The formula darkens shadows most and leaves highlights as they are. Photographs taken with too little light are
    darker everywhere: in linear light by the same factor, whatever the local illumination. ``exposure`` does that, by
    about 1 to 4 stops (gamma 1.3 to 3), with uneven light, the sensor's noise and a small error of the white balance.
    """

    type = "lowlight"
    kinds = LowLightParams.kinds
    weights: ClassVar[dict[str, float]] = {"paper": 0.3, "camera": 0.25, "exposure": 0.45}

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> LowLightParams:
        """See :class:`moir.degrade.base.Degradation`."""
        kind = pick_kind(kind, self.weights, self.type, generator)
        gamma, seed = draw(self.type, level, generator), new_seed(generator)
        smooth = uniform(generator, 0.01, 0.08)
        if kind == "paper":
            return LowLightParams(kind, seed, gamma, smooth)
        if kind == "exposure":
            return LowLightParams(
                kind,
                seed,
                gamma,
                smooth,
                exposure=2.2 * (gamma - 1) ** 0.75 * uniform(generator, 0.85, 1.25),
                noise=uniform(generator, 0, 1) ** 2 * 3 * min(gamma - 1, 2),
                shade=uniform(generator, 0, 1) * (gamma - 1) if uniform(generator, 0, 1) < 0.5 else 0.0,
                keep=uniform(generator, 0.3, 1) if uniform(generator, 0, 1) < 0.3 else 0.0,
                balance=(uniform(generator, 0.95, 1.05), 1.0, uniform(generator, 0.95, 1.05)),
                blotch=uniform(generator, 0.5, 1.4) if uniform(generator, 0, 1) < 0.4 else 0.0,
            )
        # The darker, the higher the gain, and so the noise; a tripod or a good camera gives almost none.
        exposure = uniform(generator, 0.2, 1.2) * (gamma - 1)
        noise = uniform(generator, 0, 3.5) * (gamma - 1)
        return LowLightParams(kind, seed, gamma, smooth, exposure, noise)

    def apply(
        self, images: torch.Tensor, params: Sequence[Params], illumination: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`.

        Args:
            images: (B, 3, H, W), [0, 1].
            params: B parameter records.
            illumination: (B, H, W) in [0, 1]; None: computed from the picture by :func:`illumination_map`.
        """
        records = check_batch(images, params, LowLightParams)
        illumination = None if illumination is None else check_map(illumination, images, "illumination")
        out = []
        for index, (x, p) in enumerate(zip(images, records, strict=True)):
            given = None if illumination is None else illumination[index].clamp(1e-4, 1)
            if p.kind == "exposure":
                out.append(_expose(x, given, p))
                continue
            light = illumination_map(x, p.smooth) if given is None else given
            y = (x * light ** (p.gamma - 1)).clamp(0, 1)
            if p.kind == "camera":
                y = (y**GAMMA * 2.0**-p.exposure) ** (1 / GAMMA)
                y = iso_noise(y, p.noise / 255, 0.9, 0.4, 0.4, seeded(p.seed, x.device))
            out.append(y)
        return torch.stack(out).clamp(0, 1)


def _expose(x: torch.Tensor, light: torch.Tensor | None, p: LowLightParams) -> torch.Tensor:
    """One picture (3, H, W) taken with too little light."""
    generator = seeded(p.seed, x.device)
    stops: torch.Tensor | float = p.exposure
    if p.shade > 0:
        stops = stops + p.shade * smooth_field(x.shape[-2], x.shape[-1], generator, cells=1.2, octaves=1)
    if p.keep > 0:
        light = illumination_map(x, p.smooth) if light is None else light
        stops = stops * (1 - p.keep * light * light * light)
    balance = torch.tensor(p.balance, device=x.device)[:, None, None]
    gain = torch.exp2(-torch.as_tensor(stops, device=x.device)) * balance
    linear = (to_linear(x) * gain).clamp_max(1)
    if p.noise > 0:
        linear = sensor_noise(linear, p.noise / 255, 0.9, (1.4, 1.0, 1.3), 0.4, p.blotch, 0.0, generator)
    return to_display(linear)


def illumination_map(image: torch.Tensor, smooth: float) -> torch.Tensor:
    """Illumination as the brightest channel (LIME's first estimate), averaged over a neighbourhood.

    Never below the brightest channel itself, so that the reflectance x / L stays in [0, 1].

    Args:
        image: (3, H, W), [0, 1].
        smooth: Neighbourhood, as a fraction of the longer side.

    Returns:
        (H, W) in [1e-4, 1].
    """
    brightest = image.max(0).values[None, None]
    size = image.shape[-2:]
    radius = round(smooth * max(size))
    light = brightest
    if radius > 0:
        # Averaged on a coarse grid whose cells are a quarter of the neighbourhood: the same map, at any size, cheaply.
        cell = max(1, radius // 4)
        grid = (math.ceil(size[0] / cell), math.ceil(size[1] / cell))
        light = F.adaptive_avg_pool2d(light, grid)
        reach = min(round(radius / cell), *(side - 1 for side in grid))
        for _ in range(2):  # two box filters: a soft triangle
            light = F.avg_pool2d(F.pad(light, (reach,) * 4, mode="reflect"), 2 * reach + 1, stride=1)
        light = F.interpolate(light, size=size, mode="bilinear", align_corners=False)
    return torch.maximum(light, brightest)[0, 0].clamp(1e-4, 1)
