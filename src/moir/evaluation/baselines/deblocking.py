"""JPEG artefact removal by compressing again, shifted, and averaging."""

from typing import Any

import cv2
import numpy as np

from moir.evaluation.baselines.base import Baseline, Pixels

Levels = np.ndarray[Any, Any]
"""Pixels as uint8, (H, W) or (H, W, 3)."""

QUALITIES = tuple(range(5, 92))
"""Where the quality of the file is looked for; above, there is nothing to remove."""
LOOKED_AT = 384
"""Side of the corner of the picture that the quality is estimated on, pixels."""
DIP = 0.5
"""A quality is believed where the change is below this share of the changes just above it."""
SHIFTS = tuple((row, column) for row in range(0, 8, 2) for column in range(row // 2 % 2, 8, 2))
"""Shifts of the 8x8 grid, pixels: a quarter of all 64, in quincunx. More gain hundredths of a decibel."""


def deblock(pixels: Pixels) -> Pixels:
    """The mean of the picture compressed again with its grid shifted, at the quality it seems to have had.

    A picture that shows no quality was not a JPEG, or was cropped off its 8x8 grid, and is left alone.
    """
    levels = np.round(pixels * 255).astype(np.uint8)
    quality = estimate_quality(levels)
    if quality is None:
        return pixels
    height, width = levels.shape[:2]
    total = np.zeros(levels.shape, np.float64)
    for row, column in SHIFTS:
        moved = cv2.copyMakeBorder(levels, row, 0, column, 0, cv2.BORDER_REFLECT)
        total += compress(moved, quality)[row : row + height, column : column + width]
    return (total / (255 * len(SHIFTS))).astype(np.float32)


def estimate_quality(levels: Levels) -> int | None:
    """The libjpeg quality a picture was saved with, or one close to it; None if it does not look like a JPEG.

    Compressed again at the quality that it was saved with, a JPEG hardly changes ("JPEG ghosts": Farid, Exposing
    digital forgeries from JPEG ghosts, IEEE TIFS 2009); only brightness is looked at, whatever was done to the colours.
    """
    luma = cv2.cvtColor(levels[:LOOKED_AT, :LOOKED_AT], cv2.COLOR_RGB2GRAY).reshape(
        levels[:LOOKED_AT, :LOOKED_AT, 0].shape
    )
    changes = [float(np.square(compress(luma, q).astype(np.float32) - luma).mean()) for q in QUALITIES]
    for number, quality in enumerate(QUALITIES[:-2]):
        if changes[number] < DIP * max(changes[number + 1 : number + 4]):
            return quality
    return None


def compress(levels: Levels, quality: int) -> Levels:
    """One JPEG round trip (libjpeg, colours at full resolution)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if levels.ndim == 2:
        data = cv2.imencode(".jpg", levels, options)[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    data = cv2.imencode(".jpg", levels[..., ::-1], options)[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


DEBLOCK = Baseline(
    "deblock",
    "mean of 16 shifted JPEG compressions at the estimated quality",
    "Nosratinia, Enhancement of JPEG-compressed images by re-application of JPEG, J. VLSI Signal Processing 2001",
    ("jpeg",),
    deblock,
)
