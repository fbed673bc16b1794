"""Luminance as MATLAB's rgb2ycbcr computes it."""

import torch

from moir.base.errors import TensorShapeError

WEIGHTS = (65.481, 128.553, 24.966)
"""ITU-R BT.601 luma weights for R, G, B in [0, 1], scaled to the 16..235 range of 8-bit video."""


def luminance(pictures: torch.Tensor) -> torch.Tensor:
    """The Y channel of ITU-R BT.601 in studio range, on the scale [0, 1] of 8-bit values divided by 255.

    ``Y = (65.481 R + 128.553 G + 24.966 B + 16) / 255``, so that black is 16/255 and white 235/255. MATLAB's
    ``rgb2ycbcr`` gives this for doubles, and rounds it to whole levels for uint8 pictures; nothing is rounded here.

    Args:
        pictures: (..., 3, H, W), RGB, [0, 1].

    Returns:
        (..., 1, H, W), float64, in [16/255, 235/255].

    Raises:
        TensorShapeError: Not three channels.

    Examples:
        >>> (luminance(torch.ones(3, 1, 1)) * 255).item()
        235.0
    """
    if pictures.dim() < 3 or pictures.shape[-3] != 3:
        raise TensorShapeError(f"expected RGB pictures (..., 3, H, W), got {tuple(pictures.shape)}")
    red, green, blue = (channel.double() for channel in pictures.unbind(-3))
    return ((WEIGHTS[0] * red + WEIGHTS[1] * green + WEIGHTS[2] * blue + 16) / 255).unsqueeze(-3)
