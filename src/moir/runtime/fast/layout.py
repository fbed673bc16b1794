"""How the fast twins hold features: one picture, channels last, in strips of rows that stay in the cache.

Every feature map of a twin is (1, C, H, W) in the channels-last memory format: a pixel's channels lie side by side, so
a 1x1 convolution is a matrix product on contiguous memory, and a range of rows is a contiguous piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

STRIP_BYTES = 2 * 2**20
"""Size of the widest intermediate result of a strip, bytes: about what the second-level caches of two cores hold. It is
also far below 32 MiB, from which on the C library takes fresh pages from the kernel for every tensor."""


@dataclass(frozen=True)
class Strip:
    """Rows of a feature map, and how many rows beside them a depthwise convolution needs to see.

    Attributes:
        start, stop: The rows that are computed.
        above, below: Rows of the halo that are there; fewer than the kernel reaches at the map's border.
    """

    start: int
    stop: int
    above: int
    below: int

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """These rows of (1, C, H, W), a view."""
        return x[:, :, self.start : self.stop]

    def widened(self, x: torch.Tensor) -> torch.Tensor:
        """These rows of (1, C, H, W) with their halo, a view."""
        return x[:, :, self.start - self.above : self.stop + self.below]

    def crop(self, x: torch.Tensor) -> torch.Tensor:
        """Take the halo off something computed from :meth:`widened`, a view."""
        return x[:, :, self.above : x.shape[2] - self.below]


def strips(x: torch.Tensor, channels: int, halo: int = 0, multiple: int = 1) -> Iterator[Strip]:
    """Divide a feature map into strips of rows.

    Args:
        x: (1, C, H, W).
        channels: Of the widest intermediate result.
        halo: Rows that a convolution reaches beyond its own; where the halo exceeds the map, zero padding is right.
        multiple: Strips start at multiples of this.
    """
    height, width = x.shape[-2:]
    rows = max(1, STRIP_BYTES // (width * channels * x.element_size()))
    rows = max(multiple, rows // multiple * multiple)
    for start in range(0, height, rows):
        stop = min(height, start + rows)
        yield Strip(start, stop, min(halo, start), min(halo, height - stop))


def empty_map(like: torch.Tensor, channels: int | None = None) -> torch.Tensor:
    """An uninitialised channels-last map of the size and precision of ``like``."""
    _, own, height, width = like.shape
    size = (1, own if channels is None else channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def tokens(x: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) channels last as the matrix (H * W, C), a view."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


class Convolution(nn.Module):
    """A convolution at stride 1 that keeps the size, with its weights rounded and laid out once.

    Args:
        weight: (out, in, k, k), k odd; (C, 1, k, k) with more than one channel is depthwise.
        bias: (out,), or None.
        dtype: Precision of the arithmetic.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, depthwise: bool = False):
        super().__init__()
        self.groups = weight.shape[0] if depthwise else 1
        self.padding = weight.shape[-1] // 2
        self.register_buffer("weight", weight.detach().to(dtype, memory_format=torch.channels_last, copy=True))
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))

    @classmethod
    def of(cls, conv: nn.Module, dtype: torch.dtype, channels: slice = slice(None)) -> "Convolution":
        """From a convolution of a network, or from some of its output channels."""
        assert isinstance(conv, nn.Conv2d)
        bias = None if conv.bias is None else conv.bias[channels]
        return cls(conv.weight[channels], bias, dtype, depthwise=conv.groups > 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, in, H, W) to (1, out, H, W)."""
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)


def matrix(conv: nn.Module) -> torch.Tensor:
    """The (out, in) matrix of a 1x1 convolution, float64: products of matrices are rounded once, at the end."""
    assert isinstance(conv, nn.Conv2d)
    return conv.weight.detach().flatten(1).double()


def pointwise(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> Convolution:
    """A 1x1 convolution from its (out, in) matrix."""
    return Convolution(weight[:, :, None, None], bias, dtype)
