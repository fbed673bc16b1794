"""Decoded frames to tensors and back, by the matrix and range that the file names.

Sixteen bits per channel in between, so that the way there and back costs less than the rounding of 8-bit video.
"""

from typing import Any

import numpy as np
import torch

from moir.batch.video.opening import UNSPECIFIED, Facts, pyav

_LIMITED, _FULL = 1, 2
# H.273's matrix codes to swscale's; what has no entry there (YCgCo, ICtCp, ...) is not converted correctly by it.
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}


def to_tensor(frame: Any, facts: Facts) -> torch.Tensor:
    """A frame as (3, H, W), float32, [0, 1], RGB, in the file's own transfer curve and primaries."""
    rgb = pyav().video.reformatter.VideoReformatter().reformat(
        frame,
        format="rgb48le",
        src_colorspace=matrix_of(facts),
        src_color_range=range_of(facts),
        dst_color_range=_FULL,
        interpolation=_exact(),
    )  # fmt: skip
    return torch.from_numpy(rgb.to_ndarray().astype(np.float32) / 65535).permute(2, 0, 1)


def to_frame(rgb: torch.Tensor, facts: Facts, pixel_format: str) -> Any:
    """The reverse of :func:`to_tensor`; colours outside [0, 1] are clamped."""
    av = pyav()
    values = (rgb.clamp(0, 1) * 65535).round().permute(1, 2, 0).contiguous().numpy().astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(values, format="rgb48le")
    result = av.video.reformatter.VideoReformatter().reformat(
        frame,
        format=pixel_format,
        src_color_range=_FULL,
        dst_colorspace=matrix_of(facts),
        dst_color_range=range_of(facts),
        interpolation=_exact(),
    )  # fmt: skip
    result.colorspace = facts.matrix
    result.color_range = facts.range
    result.color_primaries = facts.primaries
    result.color_trc = facts.transfer
    return result


def matrix_of(facts: Facts) -> int:
    """Swscale's code of the matrix; where the file names none, BT.709 from 720 lines on and BT.601 below."""
    if facts.matrix in (UNSPECIFIED, 0):
        return 1 if facts.height >= 720 else 5
    return _SWSCALE.get(facts.matrix, 1)


def range_of(facts: Facts) -> int:
    """1 limited (also where the file says nothing), 2 full."""
    return _FULL if facts.range == _FULL or facts.pixel_format.startswith(("yuvj", "rgb", "gbr", "bgr")) else _LIMITED


def _exact() -> int:
    from av.video.reformatter import Interpolation

    kinds = (
        Interpolation.BICUBIC,
        Interpolation.ACCURATE_RND,
        Interpolation.FULL_CHR_H_INT,
        Interpolation.FULL_CHR_H_INP,
    )
    return int(kinds[0] | kinds[1] | kinds[2] | kinds[3])
