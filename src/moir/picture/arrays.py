"""NumPy arrays and tensors to Pictures."""

from typing import Any, Literal

import numpy as np
import torch

from moir.base.errors import InvalidValueError, TensorShapeError
from moir.picture.picture import Picture, split_channels

# Resizing and colour arithmetic leave 1.0000001; more than this is a picture of another range.
_TOLERANCE = 1e-4


def from_array(array: Any, *, depth: Literal[8, 16] | None = None) -> Picture:
    """Take over a NumPy array, channels last, RGB order.

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, (H, W, 4) RGBA; uint8 (0..255), uint16
            (0..65535) or floats in [0, 1] (1e-4 beyond is clamped).
        depth: Bits per channel when written; None: 16 for uint16, else 8.

    Raises:
        TensorShapeError: Another shape or type.
        InvalidValueError: Floats that are NaN, infinite or out of range.

    Examples:
        >>> picture = from_array(np.zeros((2, 5, 3), dtype=np.uint8))
        >>> picture.height, picture.width, picture.grey
        (2, 5, False)
    """
    if not isinstance(array, np.ndarray):
        raise TensorShapeError(f"expected a NumPy array, got {type(array).__name__}")
    values = array[..., None] if array.ndim == 2 else array
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4) or 0 in values.shape:
        hint = "; for channels first use from_tensor" if values.ndim == 3 and values.shape[0] in (1, 3) else ""
        raise TensorShapeError(f"expected (H, W) or (H, W, 1 to 4) with H, W >= 1, got {array.shape}{hint}")
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        # A copy in native byte order without negative strides, which torch cannot take.
        values = values.astype(values.dtype.newbyteorder("="))
    elif values.dtype.kind == "f":
        _check_range(float(values.min()), float(values.max()))
        values = np.clip(values.astype(np.float32), 0, 1)
    else:
        raise TensorShapeError(f"expected uint8, uint16 or floats in [0, 1], got {values.dtype}; convert it first")
    rgb, alpha, grey = split_channels(values)
    bits: Literal[8, 16] = depth or (16 if values.dtype.itemsize == 2 and values.dtype.kind == "u" else 8)
    return Picture(rgb=rgb, alpha=alpha, grey=grey, depth=_checked(bits), source_format="array")


def from_tensor(tensor: torch.Tensor, *, depth: Literal[8, 16] = 8) -> Picture:
    """Take over a tensor, channels first, RGB order.

    Args:
        tensor: (3, H, W) RGB or (1, H, W) grey, with or without a leading batch dimension of 1; floats in [0, 1] (1e-4
            beyond is clamped) or uint8 (0..255).
        depth: Bits per channel when written.

    Raises:
        TensorShapeError: Another shape or type.
        InvalidValueError: Floats that are NaN, infinite or out of range.

    Examples:
        >>> from_tensor(torch.zeros(1, 4, 6)).grey
        True
    """
    if not isinstance(tensor, torch.Tensor):
        raise TensorShapeError(f"expected a tensor, got {type(tensor).__name__}")
    planes = tensor.detach().cpu()
    if planes.ndim == 4 and planes.shape[0] == 1:
        planes = planes[0]
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape:
        hint = "; for channels last use from_array" if planes.ndim == 3 and planes.shape[2] in (1, 3, 4) else ""
        raise TensorShapeError(f"expected (3, H, W) or (1, H, W) with H, W >= 1, got {tuple(tensor.shape)}{hint}")
    if planes.dtype == torch.uint8:
        planes = planes.to(torch.float32) / 255
    elif planes.is_floating_point():
        planes = planes.to(torch.float32)
        _check_range(float(planes.min()), float(planes.max()))
        planes = planes.clamp(0, 1)
    else:
        raise TensorShapeError(f"expected floats in [0, 1] or uint8, got {planes.dtype}; convert it first")
    grey = planes.shape[0] == 1
    return Picture(rgb=planes.repeat(3, 1, 1) if grey else planes, grey=grey, depth=_checked(depth))


def _check_range(low: float, high: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high)):  # minimum and maximum pass NaN on
        raise InvalidValueError("the pixels hold NaN or infinite values; look for the computation that made them")
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise InvalidValueError(
            f"float pixels must lie in [0, 1], these go from {low:g} to {high:g}; divide by the largest possible value"
        )


def _checked(depth: Literal[8, 16]) -> Literal[8, 16]:
    if depth not in (8, 16):
        raise InvalidValueError(f"depth is 8 or 16 bits per channel, not {depth}")
    return depth
