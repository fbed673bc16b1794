"""Halving and doubling the resolution, on channels-last maps; what follows a pixel-shuffle is folded into it."""

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers.resample import Downsample, Upsample
from moir.runtime.fast.layout import Convolution, matrix, pointwise


class Down(nn.Module):
    """:class:`~moir.layers.resample.Downsample`: (1, C, H, W) to (1, 2C, H/2, W/2).

    Args:
        down: The network's.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, down: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(down, Downsample)
        self.conv = Convolution.of(down.body[0], dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, C, H, W) with even H, W to (1, 2C, H/2, W/2)."""
        return F.pixel_unshuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)


class Up(nn.Module):
    """:class:`~moir.layers.resample.Upsample`: (1, C, H, W) to (1, C/2, 2H, 2W).

    Args:
        up: The network's.
        dtype: Precision of the arithmetic.
        then: An (out, C/2) matrix that every pixel is multiplied by afterwards. A 1x1 convolution behind a
            pixel-shuffle is the same as one before it on each of the four groups of channels, and that is a
            3x3 convolution with other weights.
    """

    def __init__(self, up: nn.Module, dtype: torch.dtype, then: torch.Tensor | None = None) -> None:
        super().__init__()
        assert isinstance(up, Upsample)
        conv = up.body[0]
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight.detach().double()
        if then is not None:
            # The channel that goes to sub-pixel s of feature c is 4c + s.
            weight = torch.einsum("oc,csikl->osikl", then, weight.unflatten(0, (-1, 4))).flatten(0, 1)
        self.conv = Convolution(weight, None, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, C, H, W) to (1, C/2, 2H, 2W), or as many channels as ``then`` gives."""
        return F.pixel_shuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)


class UpAndFuse(nn.Module):
    """Upsample, concatenate the skip behind it, and mix both with a 1x1 convolution, without concatenating.

    Args:
        up: The network's upsampling.
        fuse: The network's 1x1 convolution.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, up: nn.Module, fuse: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(up, Upsample)
        assert isinstance(fuse, nn.Conv2d)
        assert isinstance(up.body[0], nn.Conv2d)
        both = matrix(fuse)
        own = up.body[0].out_channels // 4
        self.up = Up(up, dtype, both[:, :own])
        self.skip = pointwise(both[:, own:], fuse.bias, dtype)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map (1, C, H, W) and a skip (1, C/2, 2H, 2W) to (1, C/2, 2H, 2W)."""
        out: torch.Tensor = self.skip(skip)
        return out.add_(self.up(x))
