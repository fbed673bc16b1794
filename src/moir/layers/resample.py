"""Halving and doubling the resolution by moving pixels into channels and back, without loss."""

import torch
from torch import nn


class Downsample(nn.Module):
    """3x3 convolution to half the channels, then pixel-unshuffle: (B, C, H, W) to (B, 2C, H/2, W/2).

    Args:
        dim: Channels C, even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) with even H, W to (B, 2C, H/2, W/2)."""
        out: torch.Tensor = self.body(x)
        return out


class Upsample(nn.Module):
    """3x3 convolution to twice the channels, then pixel-shuffle: (B, C, H, W) to (B, C/2, 2H, 2W).

    Args:
        dim: Channels C, even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C/2, 2H, 2W)."""
        out: torch.Tensor = self.body(x)
        return out
