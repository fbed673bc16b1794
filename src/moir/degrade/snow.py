"""Snow: procedural flakes, in focus and out of focus, or masks from a folder such as Snow100K's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F

from moir.base.errors import PictureCorruptError, PictureNotFoundError
from moir.degrade.base import Params, check_batch, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import convolve, gaussian_kernel, line_kernel, seeded, smooth_field, stack_kernels
from moir.degrade.severity import draw

# radius in pixels, share of the picture covered at amount 1, opacity: far flakes are many, small and faint
SIZES: tuple[tuple[float, float, float], ...] = ((0.8, 0.06, 0.75), (1.8, 0.045, 0.85), (4.0, 0.03, 0.9))

MASK_SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@register_params
@dataclass(frozen=True)
class SnowParams(Params):
    """Parameters of snow.

    Attributes:
        amount: Flakes relative to heavy snowfall (1). ``mask``: thickness of the snow relative to the mask picture.
        angle: Direction of fall, degrees from the vertical.
        motion: Length of the motion trail relative to a flake's radius, 0 for flakes that hang in the air.
        scale: Factor on the size of all flakes.
        opacity: Factor on the opacity of all flakes, 0..1.
        veil: Strength of the white veil of distant snow, 0..1.
        layers: ``depth`` only: how many distances there are.
        largest: ``depth`` only: radius of the nearest flakes, which are the farthest out of focus, pixels.
        mask: ``mask`` only: path of the mask picture (bright where flakes are).
    """

    type: ClassVar[str] = "snow"
    kinds: ClassVar[tuple[str, ...]] = ("flakes", "depth", "mask")
    severity_field: ClassVar[str] = "amount"

    amount: float
    angle: float = 0.0
    motion: float = 0.0
    scale: float = 1.0
    opacity: float = 1.0
    veil: float = 0.0
    layers: int = 4
    largest: float = 8.0
    mask: str | None = None


class Snow:
    """y = x (1 - m) + m, with an opacity mask m of flakes (Snow100K; Liu et al. 2018, eq. 1 with white flakes).

    ``flakes`` has three sizes, all nearly in focus. ``depth`` has flakes of many distances, as photographs show them:
    fine ones, most with a short trail, few of them bright, and large soft discs of little opacity close to the lens.

    A mask picture M gives m = 1 - (1 - M) ** amount: at amount 1 the mask itself, as published; at 0.5 or 2 half or
    twice as thick a layer of the same snow.
    """

    type = "snow"
    kinds = SnowParams.kinds

    def __init__(self, masks: str | Path | None = None) -> None:
        """Masks: a folder of mask pictures for the kind ``mask``, searched with all its subfolders."""
        self.masks = None if masks is None else Path(masks)

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> SnowParams:
        """See :class:`moir.degrade.base.Degradation`.

        Raises:
            PictureNotFoundError: The kind ``mask`` was asked for without a folder that holds pictures.
        """
        kind = pick_kind(kind, {"flakes": 0.5, "depth": 0.5, "mask": 0.0}, self.type, generator)
        amount, seed = draw(self.type, level, generator), new_seed(generator)
        if kind == "mask":
            return SnowParams(kind, seed, amount, mask=str(self._draw_mask(generator)))
        if kind == "depth":
            return SnowParams(
                kind,
                seed,
                amount,
                angle=uniform(generator, -60, 60),
                motion=uniform(generator, 0, 3) if uniform(generator, 0, 1) < 0.7 else 0.0,
                scale=uniform(generator, 0.7, 1.4),
                opacity=uniform(generator, 0.55, 1.0),
                veil=uniform(generator, 0, 0.35 * min(amount, 1.5)) if uniform(generator, 0, 1) < 0.6 else 0.0,
                layers=int(uniform(generator, 3, 6)),
                largest=3 * 5 ** uniform(generator, 0, 1),
            )
        return SnowParams(
            kind,
            seed,
            amount,
            angle=uniform(generator, -50, 50),
            motion=uniform(generator, 0, 4),
            scale=uniform(generator, 0.6, 1.5),
            opacity=uniform(generator, 0.7, 1.0),
            veil=uniform(generator, 0, 0.25 * amount) if uniform(generator, 0, 1) < 0.6 else 0.0,
        )

    def apply(self, images: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`."""
        records = check_batch(images, params, SnowParams)
        out = []
        for x, p in zip(images, records, strict=True):
            generator = seeded(p.seed, x.device)
            if p.kind == "mask":
                mask = _fit(_read_mask(p.mask).to(x.device), x.shape[-2], x.shape[-1], generator)
                mask = 1 - (1 - mask) ** p.amount
            else:
                mask = (deep_flakes if p.kind == "depth" else flakes)(x.shape[-2], x.shape[-1], p, generator)
            out.append(x * (1 - mask) + mask)
        return torch.stack(out).clamp(0, 1)

    def _draw_mask(self, generator: torch.Generator) -> Path:
        found = () if self.masks is None else _mask_files(self.masks.resolve())
        if not found:
            raise PictureNotFoundError(
                f"snow of kind 'mask' needs a folder of mask pictures ({', '.join(MASK_SUFFIXES)}), got {self.masks}; "
                "pass snow_masks=FOLDER (or Snow(FOLDER)), e.g. the masks of Snow100K, or use kind 'flakes'"
            )
        return found[int(torch.randint(len(found), (), generator=generator).item())]


def flakes(height: int, width: int, p: SnowParams, generator: torch.Generator) -> torch.Tensor:
    """The opacity mask of procedural flakes, (H, W) in [0, 1]."""
    device = generator.device
    clear = torch.ones(height, width, device=device)  # what still shows through
    for radius, cover, opacity in SIZES:
        size = radius * p.scale
        trail = size * p.motion * (0.4 + 0.2 * radius)
        blob = gaussian_kernel(max(0.45, size * 0.6), device)
        blob = blob / blob.max()
        if trail > 1:
            line = line_kernel(trail, 0.4, p.angle, device)
            pad = line.shape[-1] // 2
            blob = convolve(F.pad(blob[None, None], (pad,) * 4), line[None], reflect=False)[0, 0].clamp_min(0)
            blob = blob / blob.max()
        starts = torch.rand(height, width, generator=generator, device=device)
        strength = 0.4 + 0.6 * torch.rand(height, width, generator=generator, device=device)
        # Squalls: flakes are denser in some places than in others.
        squall = 0.5 + smooth_field(height, width, generator, cells=2)
        seeds = torch.where(starts < p.amount * cover * squall / blob.sum(), strength, torch.zeros_like(strength))
        layer = convolve(seeds[None, None], blob[None], reflect=False)[0, 0].clamp(0, 1)
        clear = clear * (1 - (p.opacity * opacity * layer).clamp(0, 1))
    return 1 - clear * (1 - _veil(height, width, p, generator))


def deep_flakes(height: int, width: int, p: SnowParams, generator: torch.Generator) -> torch.Tensor:
    """The opacity mask of flakes at many distances, (H, W) in [0, 1]."""
    device = generator.device
    kernels, densities, opacities = [], [], []
    for index in range(p.layers):
        # Radii in equal ratios from 0.8 px to the largest.
        share = index / max(p.layers - 1, 1)
        radius = 0.8 * p.scale * (p.largest / 0.8) ** share
        tilt = p.angle + 12 * float(torch.randn((), generator=generator, device=device))
        kernel = _disc(radius, radius * p.motion * (1 - 0.7 * share), tilt, device)
        kernels.append(kernel)
        densities.append(p.amount * 0.07 / (float(kernel.sum()) + 4))
        # The light of a flake out of focus is spread over its disc; how far, differs.
        lost = 0.1 + 0.6 * float(torch.rand((), generator=generator, device=device))
        opacities.append(p.opacity * (0.95 - lost * share))
    draw_, bright = torch.rand(2, p.layers, height, width, generator=generator, device=device)
    squall = 0.4 + 1.2 * smooth_field(height, width, generator, cells=2, octaves=2)
    density, opacity = (torch.tensor(v, device=device)[:, None, None] for v in (densities, opacities))
    seeds = torch.where(draw_ < density * squall, 0.15 + 0.85 * bright**1.5, torch.zeros_like(bright))
    layers = convolve(seeds[:, None], stack_kernels(kernels), reflect=False)[:, 0]
    clear = (1 - opacity * layers.clamp(0, 1)).prod(0)
    return 1 - clear * (1 - _veil(height, width, p, generator))


def _disc(radius: float, trail: float, tilt: float, device: torch.device) -> torch.Tensor:
    """A soft disc, drawn out along its fall by ``trail`` pixels; (K, K), at most 1."""
    reach = math.ceil(radius + trail / 2 + 1.5)
    axis = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    turn = math.radians(tilt)
    along = axis[None] * math.sin(turn) - axis[:, None] * math.cos(turn)
    across = axis[:, None] * math.sin(turn) + axis[None] * math.cos(turn)
    beyond = (along.abs() - trail / 2).clamp_min(0)
    distance = (beyond * beyond + across * across).sqrt()
    edge = max(1.5, 0.5 * radius)  # half the radius is edge: a lens seldom gives a hard one
    disc = ((radius + 0.5 * edge - distance) / edge).clamp(0, 1)
    return disc / (1 + 0.25 * trail / max(radius, 1.0))  # moving flakes are fainter


def _veil(height: int, width: int, p: SnowParams, generator: torch.Generator) -> torch.Tensor | float:
    if p.veil <= 0:
        return 0.0
    return p.veil * (0.6 + 0.4 * smooth_field(height, width, generator, cells=2))


@lru_cache(maxsize=8)
def _mask_files(folder: Path) -> tuple[Path, ...]:
    # Listed once: Snow100K has a hundred thousand.
    return tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in MASK_SUFFIXES))


def _read_mask(path: str | None) -> torch.Tensor:
    import numpy as np
    from PIL import Image  # imported here: only masks need it

    if path is None or not Path(path).is_file():
        raise PictureNotFoundError(f"the snow mask {path} is not there; masks are named in the record of the damage")
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)
    except OSError as error:
        raise PictureCorruptError(
            f"the snow mask {path} cannot be read ({error}); take it out of the folder"
        ) from error


def _fit(mask: torch.Tensor, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Cut a random part of the mask, enlarged first if it is smaller than the picture."""
    enlarge = max(height / mask.shape[0], width / mask.shape[1], 1)
    if enlarge > 1:
        size = (max(height, round(mask.shape[0] * enlarge)), max(width, round(mask.shape[1] * enlarge)))
        mask = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    top, left = (
        int(torch.randint(room + 1, (), generator=generator, device=generator.device).item())
        for room in (mask.shape[0] - height, mask.shape[1] - width)
    )
    return mask[top : top + height, left : left + width]
