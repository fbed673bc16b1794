"""From pixels to the first feature map: overlapping 3x3 patches at full resolution."""

import torch
from torch import nn


class PatchEmbedding(nn.Module):
    """3x3 convolution (state-dict name ``proj``), as in Restormer and its descendants.

    Args:
        channels: Channels of the picture.
        dim: Channels of the features.
        bias: Whether the convolution has a bias.
    """

    def __init__(self, channels: int, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 3, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to (B, dim, H, W)."""
        out: torch.Tensor = self.proj(x)
        return out
