"""What every decoder hands over, and how a Picture is made of it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moir.picture import exif as exif_blocks
from moir.picture import orientation as turning
from moir.picture.picture import Picture, split_channels
from moir.picture.quantise import Array


@dataclass
class Decoded:
    """Pixels as stored (before orientation), and the rest of the file.

    Attributes:
        values: (H, W, C) uint8, uint16 or float in [0, 1]; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        orientation: EXIF orientation where it does not stand in ``exif`` (TIFF); else None.
        frames: How many frames or pages the file holds.

    The other attributes are those of Picture.
    """

    values: Array
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int | None = None
    frames: int = 1
    webp_lossless: bool = False
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()

    def picture(self, source_format: str, path: Path | None = None) -> Picture:
        """Turn the pixels upright, exactly once, and make the Picture."""
        orientation = self.orientation or exif_blocks.orientation_of(self.exif)
        values = turning.turn_upright(self.values, orientation)
        turned = orientation != 1
        depth: Literal[8, 16] = 8 if values.dtype == np.uint8 else 16
        rgb, alpha, grey = split_channels(values)
        dpi = self.dpi[::-1] if self.dpi and orientation >= 5 else self.dpi
        return Picture(
            rgb=rgb,
            alpha=alpha,
            grey=grey,
            depth=depth,
            exif=exif_blocks.made_upright(self.exif) if self.exif else None,
            icc=self.icc or None,
            # An orientation in XMP alone was not applied (viewers do not either), so it stays in force.
            xmp=turning.made_upright(self.xmp) if self.xmp and turned else self.xmp or None,
            dpi=dpi,
            source_format=source_format,
            path=path,
            webp_lossless=self.webp_lossless,
            png_chunks=self.png_chunks,
        )


def sane_dpi(value: Any) -> tuple[float, float] | None:
    """Return a resolution that can be written again, or None for what headers say by mistake."""
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (x, y) if all(math.isfinite(v) and 0 < v < 65536 for v in (x, y)) else None


def bytes_or_none(value: Any) -> bytes | None:
    """Return metadata that is bytes and not empty, else None."""
    return bytes(value) if isinstance(value, bytes | bytearray) and value else None
