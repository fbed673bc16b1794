"""Enlarging features by convolution and pixel shuffle, as super-resolution networks end."""

from torch import nn

from moir.base.errors import InvalidValueError


def upsampler(scale: int, channels: int) -> nn.Sequential:
    """Convolutions and pixel shuffles (arXiv 1609.05158) that enlarge (B, C, H, W) to (B, C, sH, sW).

    Powers of two go by steps of 2, 3 in one step; 1 is no layer at all.

    Args:
        scale: s, one of 1, 2, 3, 4, 8.
        channels: C.

    Raises:
        InvalidValueError: Another scale.
    """
    if scale not in (1, 2, 3, 4, 8):
        raise InvalidValueError(f"scale is {scale}; it must be 1, 2, 3, 4 or 8")
    steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    layers: list[nn.Module] = []
    for step in steps:
        layers += [nn.Conv2d(channels, channels * step**2, 3, padding=1), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)
