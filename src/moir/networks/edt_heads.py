"""The convolutional heads and tails of EDT (arXiv 2112.10175, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers.upsampler import upsampler

SLOPE = 0.2


class HeadBlock(nn.Module):
    """Two 3x3 convolutions to another width, beside a 1x1; then, if asked for, down to half the resolution.

    Args:
        channels: Channels C of the input.
        out_channels: Channels of the output.
        down: Whether the resolution is halved.
    """

    def __init__(self, channels: int, out_channels: int, down: bool) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out_channels, 1)
        self.conv_down = nn.Conv2d(out_channels, out_channels, 4, stride=2, padding=1, bias=False) if down else None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, C, H, W) to what follows, and to what the tail gets: the same before it is halved."""
        y = F.leaky_relu(self.conv_1(x), SLOPE)
        y = F.leaky_relu(self.conv_2(y), SLOPE) + self.shortcut(x)
        return (y if self.conv_down is None else self.conv_down(y)), y


class Fusion(nn.Module):
    """Two 3x3 convolutions of features and skip together, beside a 1x1.

    Args:
        channels: Channels C of the features, and of the skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 2 C, H, W) to (B, C, H, W)."""
        y = F.leaky_relu(self.conv_1(x), SLOPE)
        out: torch.Tensor = F.leaky_relu(self.conv_2(y), SLOPE) + self.shortcut(x)
        return out


class TailBlock(nn.Module):
    """To the width of a skip, with twice the resolution if asked for, and fused with it.

    Args:
        channels: Channels C of the input.
        out_channels: Channels of the skip and of the output.
        up: Whether the resolution is doubled.
    """

    def __init__(self, channels: int, out_channels: int, up: bool) -> None:
        super().__init__()
        if up:
            self.up = nn.ConvTranspose2d(channels, out_channels, 2, stride=2)
        else:
            self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.block = Fusion(out_channels)
        self.doubles = up

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) and a skip to the skip's shape."""
        y = self.up(x) if self.doubles else self.conv(x)
        out: torch.Tensor = self.block(torch.cat([y, skip], dim=1))
        return out


class Head(nn.Sequential):
    """Convolution, two blocks, convolution to the width of the transformer.

    Args:
        width: Width W after the first convolution; it doubles twice.
        dim: Width C of the transformer.
        down: Whether each block halves the resolution.
    """

    def __init__(self, width: int, dim: int, down: bool) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1),
            HeadBlock(width, 2 * width, down),
            HeadBlock(2 * width, 4 * width, down),
            nn.Conv2d(4 * width, dim, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map (B, 3, H, W) to features (B, C, ...) and the two skips, the finer first."""
        first, finer, coarser, last = self
        y, fine = finer(first(x))
        y, coarse = coarser(y)
        return last(y), [fine, coarse]


class Tail(nn.Sequential):
    """Two blocks that take the skips, enlargement where there is some, and a convolution to colours.

    Args:
        width: Width W of the head.
        dim: Width C of the transformer.
        up: Whether each block doubles the resolution, for a head that halved it.
        scale: How many times larger the result is; 1 if ``up``.
    """

    def __init__(self, width: int, dim: int, up: bool, scale: int) -> None:
        enlarge = [] if scale == 1 else [upsampler(scale, 2 * width)]
        super().__init__(
            TailBlock(dim, 4 * width, up),
            TailBlock(4 * width, 2 * width, up),
            *enlarge,
            nn.Conv2d(2 * width, 3, 3, padding=1),
        )

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, skips: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Map features (B, C, ...) and the head's skips to (B, 3, scale * H, scale * W)."""
        fine, coarse = skips
        first, second, *rest = self
        y = second(first(x, coarse), fine)
        for layer in rest:
            y = layer(y)
        out: torch.Tensor = y
        return out
