"""JPEG compression as libjpeg does it, in torch, so that it runs in batches and on any device.

Colour conversion, chroma subsampling, 8x8 DCT, quantisation with the tables of the standard's Annex K scaled as
libjpeg scales them, and the way back with libjpeg's "fancy" (triangle) upsampling. Only the entropy coding, which
loses nothing, is left out. The result is that of Pillow's encoder and decoder, except where their integer transforms
round a coefficient to the next step: 49 (quality 5) to 58 dB between the two, 85 to 99% of all values equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F

from moir.base.names import check_name
from moir.degrade.base import Params, check_batch, choose, new_seed, pick_kind, register_params
from moir.degrade.severity import draw

# ITU-T T.81, tables K.1 (luminance) and K.2 (chrominance), row by row.
LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip

SUBSAMPLINGS: dict[str, float] = {"4:2:0": 0.7, "4:4:4": 0.3}
"""Chroma subsamplings, with the probabilities of drawing them."""


@register_params
@dataclass(frozen=True)
class JpegParams(Params):
    """Parameters of JPEG compression.

    Attributes:
        quality: libjpeg quality, 1..100 (a fraction is rounded).
        subsampling: ``4:2:0`` (half the chroma resolution, the usual default) or ``4:4:4``.
    """

    type: ClassVar[str] = "jpeg"
    kinds: ClassVar[tuple[str, ...]] = ("baseline",)
    severity_field: ClassVar[str] = "quality"

    quality: float
    subsampling: str = "4:2:0"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.subsampling, SUBSAMPLINGS, "chroma subsampling")


class Jpeg:
    """Baseline JPEG, encoded and decoded."""

    type = "jpeg"
    kinds = JpegParams.kinds

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> JpegParams:
        """See :class:`moir.degrade.base.Degradation`."""
        kind = pick_kind(kind, {"baseline": 1.0}, self.type, generator)
        # Rounded up, to the milder side, so that a quality drawn for a degree never falls into the next one.
        quality = float(math.ceil(draw(self.type, level, generator)))
        return JpegParams(kind, new_seed(generator), quality, choose(generator, SUBSAMPLINGS))

    def apply(self, images: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`."""
        records = check_batch(images, params, JpegParams)
        out = torch.empty_like(images)
        for subsampling in SUBSAMPLINGS:
            index = [i for i, p in enumerate(records) if p.subsampling == subsampling]
            if index:
                out[index] = compress(images[index], [records[i].quality for i in index], subsampling == "4:2:0")
        return out


def compress(images: torch.Tensor, qualities: Sequence[float], halve_chroma: bool) -> torch.Tensor:
    """Encode and decode a batch.

    Args:
        images: (B, 3, H, W), [0, 1]; rounded to 8 bit first, as a file would be.
        qualities: B libjpeg qualities.
        halve_chroma: 4:2:0 if true, 4:4:4 otherwise.

    Returns:
        (B, 3, H, W), multiples of 1/255.
    """
    height, width = images.shape[-2:]
    # As libjpeg does it: the last column is repeated before chroma is halved, the last row after.
    right, below = (-width % 16, height % 2) if halve_chroma else (-width % 8, 0)
    pixels = F.pad((images * 255).round(), (0, right, 0, below), mode="replicate")
    red, green, blue = pixels.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) * 0.5 / (1 - 0.114), (red - luma) * 0.5 / (1 - 0.299)], 1) + 128
    if halve_chroma:
        chroma = (
            F.avg_pool2d(chroma.round(), 2) + _alternating(0.25, 0.5, chroma.shape[-1] // 2, chroma.device)
        ).floor()
    luma = _quantise(luma[:, None].round(), _tables(qualities, LUMINANCE, images.device))
    chroma = _quantise(chroma.round(), _tables(qualities, CHROMINANCE, images.device))
    if halve_chroma:
        # libjpeg's decoder looks at no sample beyond the picture: it repeats the last row and column.
        chroma = chroma[..., : math.ceil(height / 2), : math.ceil(width / 2)]
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
        chroma = (chroma + _alternating(0.5, 0.4375, chroma.shape[-1], chroma.device)).floor()
    cb, cr = (chroma[..., :height, :width] - 128).unbind(1)
    y = luma[:, 0, :height, :width]
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return rgb.round().clamp(0, 255) / 255


def quantisation_table(quality: float, base: Sequence[int]) -> list[int]:
    """A quantisation table as libjpeg scales it (jpeg_quality_scaling, baseline), row by row.

    Examples:
        >>> quantisation_table(50, LUMINANCE)[:3], quantisation_table(10, LUMINANCE)[:3]
        ([16, 11, 10], [80, 55, 50])
    """
    q = min(100, max(1, round(quality)))
    scale = 5000 // q if q < 50 else 200 - 2 * q
    return [min(255, max(1, (entry * scale + 50) // 100)) for entry in base]


def _alternating(even: float, odd: float, columns: int, device: torch.device) -> torch.Tensor:
    """What libjpeg adds before cutting off the fraction of chroma: ties go down and up in turn, column by column."""
    bias = torch.full((columns,), odd, device=device)
    bias[::2] = even
    return bias


def _tables(qualities: Sequence[float], base: Sequence[int], device: torch.device) -> torch.Tensor:
    tables = [quantisation_table(q, base) for q in qualities]
    return torch.tensor(tables, dtype=torch.float32, device=device).view(-1, 1, 1, 1, 8, 8)


@lru_cache(maxsize=8)
def _dct(device: torch.device) -> torch.Tensor:
    """The orthonormal 8-point DCT-II matrix."""
    k, n = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(device)


def _quantise(plane: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """DCT, quantise, and back: (B, C, H, W), values 0..255, W a multiple of 8; rows are added to make H one, too."""
    plane = F.pad(plane, (0, 0, 0, -plane.shape[-2] % 8), mode="replicate")
    batch, channels, height, width = plane.shape
    blocks = plane.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4) - 128
    dct = _dct(plane.device)
    coefficients = dct @ blocks @ dct.T
    # Ties are common here (means of 64 whole numbers). They are decided as libjpeg does, which computes coefficients
    # to an eighth; left to the last digit of a float they would depend on the batch size and the machine.
    steps = (coefficients * 8).round() / 8 / tables
    coefficients = (steps.abs() + 0.5).floor() * steps.sign() * tables
    blocks = (dct.T @ coefficients @ dct + (128.5 + 1e-3)).floor().clamp(0, 255)  # half a level goes up
    return blocks.transpose(3, 4).reshape(batch, channels, height, width)
