"""Float pixels in [0, 1] to whole numbers of 8 or 16 bits, exactly rounded."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from moir.base.errors import InvalidValueError

Array = npt.NDArray[Any]

_ROWS_AT_A_TIME = 128  # float64 takes eight bytes a value: keep it to a strip of the picture


def to_integers(rgb: torch.Tensor, alpha: torch.Tensor | None, grey: bool, depth: int) -> Array:
    """Clamp to [0, 1], scale to the whole range and round half up.

    Args:
        rgb: (3, H, W), any floating type.
        alpha: (H, W), or None.
        grey: Write one channel, the mean of the three.
        depth: 8 or 16.

    Returns:
        (H, W, C), uint8 or uint16; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.

    Raises:
        InvalidValueError: A value is NaN or infinite: the pixels were not computed, and clamping would hide it.
    """
    _, height, width = rgb.shape
    channels = (1 if grey else 3) + (alpha is not None)
    top = 2**depth - 1
    result = np.empty((height, width, channels), dtype=np.uint8 if depth == 8 else np.uint16)
    for row in range(0, height, _ROWS_AT_A_TIME):
        rows = slice(row, row + _ROWS_AT_A_TIME)
        # In float64 the product is exact for float32 input, so that a value just below a half never rounds up.
        strip = rgb[:, rows].detach().cpu().to(torch.float64)
        if grey:
            strip = strip.mean(0, keepdim=True)
        if alpha is not None:
            strip = torch.cat([strip, alpha[None, rows].to(strip)])
        if not bool(torch.isfinite(strip).all()):
            raise InvalidValueError(
                "the picture holds values that are NaN or infinite; look for the computation that made them"
            )
        scaled = strip.clamp(0, 1).mul_(top).add_(0.5).floor_()
        result[rows] = scaled.permute(1, 2, 0).numpy()
    return result


def to_floats(values: Array) -> torch.Tensor:
    """Turn whole numbers (H, W, C) uint8 or uint16, or floats already in [0, 1], into float32 planes (C, H, W)."""
    height, width, channels = values.shape
    # Divided straight into place: no copy of the whole in between, and PIL's read-only arrays do for it.
    planes = np.empty((channels, height, width), np.float32)
    top = {"u1": 255, "u2": 65535}.get(values.dtype.str[1:], 1)
    for channel in range(channels):
        np.divide(values[..., channel], np.float32(top), out=planes[channel], dtype=np.float32)
    return torch.from_numpy(planes)
