"""Snow: procedural flakes of three size classes, or masks from a folder such as Snow100K's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F

from moir.base.errors import PictureCorruptError, PictureNotFoundError
from moir.degrade.base import Params, check_batch, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import convolve, gaussian_kernel, line_kernel, seeded, smooth_field
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
        mask: ``mask`` only: path of the mask picture (bright where flakes are).
    """

    type: ClassVar[str] = "snow"
    kinds: ClassVar[tuple[str, ...]] = ("flakes", "mask")
    severity_field: ClassVar[str] = "amount"

    amount: float
    angle: float = 0.0
    motion: float = 0.0
    scale: float = 1.0
    opacity: float = 1.0
    veil: float = 0.0
    mask: str | None = None


class Snow:
    """y = x (1 - m) + m, with an opacity mask m of flakes (Snow100K; Liu et al. 2018, eq. 1 with white flakes).

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
        kind = pick_kind(kind, {"flakes": 1.0, "mask": 0.0}, self.type, generator)
        amount, seed = draw(self.type, level, generator), new_seed(generator)
        if kind == "mask":
            return SnowParams(kind, seed, amount, mask=str(self._draw_mask(generator)))
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
                mask = flakes(x.shape[-2], x.shape[-1], p, generator)
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
    veil = p.veil * (0.6 + 0.4 * smooth_field(height, width, generator, cells=2)) if p.veil > 0 else 0.0
    return 1 - clear * (1 - veil)


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
