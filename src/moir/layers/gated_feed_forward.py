"""The feed-forward half of a Restormer block: one half of the channels gates the other (GDFN)."""

import torch
import torch.nn.functional as F
from torch import nn


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network, GDFN (arXiv 2111.09881, section 3.2, eq. 2).

    1x1 convolution to twice the hidden width, depthwise 3x3, ``gelu(first half) * second half`` (exact erf GELU),
    1x1 back.

    Args:
        dim: Channels C.
        expansion: Hidden width over ``dim``; the product is rounded down.
        bias: Whether the convolutions have biases.
    """

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        out: torch.Tensor = self.project_out(F.gelu(gate) * value)
        return out
