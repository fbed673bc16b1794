"""The picture: pixels as the networks want them, and everything else of the file that must not get lost."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image

from moir.base.errors import TensorShapeError
from moir.picture.exif import enlarged
from moir.picture.quantise import Array, to_floats, to_integers


@dataclass(frozen=True, eq=False)
class Picture:
    r"""A decoded picture with what its file said beside the pixels.

    Made by :func:`moir.picture.read`, ``from_pil``, ``from_array`` and ``from_tensor``; a Picture is never changed,
    :meth:`with_rgb` gives a new one.

    Attributes:
        rgb: (3, H, W) float32 in [0, 1], sRGB-encoded as stored: an ICC profile is kept and *not* applied. Grey
            pictures have three equal channels. Upright: EXIF orientation is already applied.
        alpha: (H, W) float32 in [0, 1], or None.
        grey: The file had one colour channel, and will be written with one.
        depth: Bits per channel of the file, 8 or 16 (1, 2 and 4 bits are widened to 8).
        exif: ``b"Exif\0\0"`` and a TIFF structure, as PIL has it; orientation is 1 and there is no thumbnail, since
            one of the unrestored picture would mislead.
        icc: ICC profile, byte for byte; None after CMYK and Lab, whose profile no longer fits the pixels.
        xmp: XMP packet, byte for byte, except that ``tiff:Orientation`` is 1 if the pixels were turned.
        dpi: Resolution in dots per inch (horizontal, vertical).
        source_format: "JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"; "array", "tensor" or "PIL" without a file.
        path: Where it was read from.
        webp_lossless: The source was a lossless WebP, so a WebP is written losslessly again.
        png_chunks: Colour chunks of a PNG besides the ICC profile (gAMA, cHRM, sRGB, cICP, ...), as (type, body).
    """

    rgb: torch.Tensor = field(repr=False)
    alpha: torch.Tensor | None = field(default=None, repr=False)
    grey: bool = False
    depth: Literal[8, 16] = 8
    exif: bytes | None = field(default=None, repr=False)
    icc: bytes | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    source_format: str = "tensor"
    path: Path | None = None
    webp_lossless: bool = False
    png_chunks: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[0] != 3 or 0 in self.rgb.shape:
            raise TensorShapeError(f"a picture is (3, H, W) with H, W >= 1, not {tuple(self.rgb.shape)}")
        if self.alpha is not None and self.alpha.shape != self.rgb.shape[1:]:
            raise TensorShapeError(
                f"alpha is {tuple(self.alpha.shape)}, but the picture is {tuple(self.rgb.shape[1:])}"
            )

    @property
    def height(self) -> int:
        """Height in pixels, as seen (after orientation)."""
        return int(self.rgb.shape[1])

    @property
    def width(self) -> int:
        """Width in pixels, as seen (after orientation)."""
        return int(self.rgb.shape[2])

    def with_rgb(self, rgb: torch.Tensor) -> "Picture":
        """Return this picture with new colours, of its size or a whole number of times larger; alpha and metadata stay.

        Pixels that are fully transparent keep the colour they had: nobody sees it, and some programs store a meaning
        there. A grey picture stays grey: the three channels are averaged when it is written, since each is an
        equally good estimate of the same grey.

        Where the colours are larger, alpha is enlarged with them (bilinear), the resolution and EXIF's sizes grow as
        much, so that the picture is printed as large as before, and XMP stays as it is.

        Args:
            rgb: (3, H, W) of this picture's size, or (3, s * H, s * W), any floating type and device. Values outside
                [0, 1] are clamped when written.

        Raises:
            TensorShapeError: Another shape, or not a floating type.
        """
        scale = rgb.shape[-1] // self.width if isinstance(rgb, torch.Tensor) and rgb.dim() == 3 else 0
        expected = (3, scale * self.height, scale * self.width)
        if not scale or not rgb.is_floating_point() or rgb.shape != expected:
            got = f"{rgb.dtype} {tuple(rgb.shape)}" if isinstance(rgb, torch.Tensor) else type(rgb).__name__
            raise TensorShapeError(
                f"expected a float tensor of shape {tuple(self.rgb.shape)}, or one a whole number of times larger, "
                f"got {got}"
            )
        base = self if scale == 1 else self._enlarged(scale)
        colours = rgb.detach().to(device="cpu", dtype=torch.float32)
        if base.alpha is not None:
            colours = torch.where(base.alpha == 0, base.rgb, colours)
        return dataclasses.replace(base, rgb=colours)

    def _enlarged(self, scale: int) -> "Picture":
        """This picture with repeated pixels, smooth alpha, and metadata that says so."""
        alpha = self.alpha
        if alpha is not None:
            alpha = F.interpolate(alpha[None, None], scale_factor=scale, mode="bilinear", align_corners=False)[0, 0]
        return dataclasses.replace(
            self,
            rgb=F.interpolate(self.rgb[None], scale_factor=scale, mode="nearest")[0],
            alpha=alpha,
            exif=None if self.exif is None else enlarged(self.exif, scale),
            dpi=None if self.dpi is None else (self.dpi[0] * scale, self.dpi[1] * scale),
        )

    def to_numpy(self, depth: Literal[8, 16] | None = None) -> Array:
        """Return the pixels as whole numbers, clamped and rounded half up.

        Args:
            depth: 8 or 16; None is the depth of the picture.

        Returns:
            uint8 or uint16: (H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA.

        Raises:
            InvalidValueError: A pixel is NaN or infinite.

        Examples:
            >>> Picture(torch.full((3, 1, 2), 0.5)).to_numpy().tolist()
            [[[128, 128, 128], [128, 128, 128]]]
        """
        values = to_integers(self.rgb, self.alpha, self.grey, depth or self.depth)
        return values[..., 0] if values.shape[2] == 1 else values

    def to_pil(self) -> Image.Image:
        """Return a PIL image with the metadata in ``info``, where PIL's own ``save`` finds most of it.

        The mode is L, LA, RGB or RGBA, or I;16 for 16-bit grey. PIL has no mode for 16-bit colour or 16-bit grey with
        alpha: these become 8 bits per channel (use :meth:`to_numpy` or :func:`moir.picture.write` for all 16).

        Raises:
            InvalidValueError: A pixel is NaN or infinite.
        """
        deep_grey = self.depth == 16 and self.grey and self.alpha is None
        image = Image.fromarray(self.to_numpy(16 if deep_grey else 8))
        kept = {"exif": self.exif, "icc_profile": self.icc, "xmp": self.xmp, "dpi": self.dpi}
        image.info.update({key: value for key, value in kept.items() if value is not None})
        return image


def split_channels(values: Array) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
    """Split stored pixels into what a Picture holds.

    Args:
        values: (H, W, C), uint8, uint16 or float in [0, 1]; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.

    Returns:
        rgb (3, H, W) and alpha (H, W) or None, float32, and whether the colours are grey.
    """
    count = values.shape[2]
    grey = count <= 2
    alpha = to_floats(values[..., -1:])[0] if count in (2, 4) else None
    rgb = to_floats(values[..., : 1 if grey else 3])
    # Channels of their own, not three views of one: whoever writes into one must not change the others.
    return rgb.repeat(3, 1, 1) if grey else rgb, alpha, grey
