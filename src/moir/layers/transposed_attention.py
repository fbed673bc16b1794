"""Attention between channels instead of pixels: linear in the number of pixels (MDTA of Restormer)."""

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.precision import at_least_float32


def transposed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Attend over channels: ``softmax(q k^T * temperature) v`` per head (arXiv 2111.09881, eq. 1).

    ``q`` and ``k`` are L2-normalised over the pixels first, so that ``q k^T`` holds cosines.

    Args:
        q: (B, C, H, W); its channels are split into consecutive heads.
        k: (B, C, H, W).
        v: (B, C, H, W).
        temperature: (heads, 1, 1).

    Returns:
        (B, C, H, W).
    """
    return attend_channels(channel_attention(q, k, temperature), v)


def channel_attention(q: torch.Tensor, k: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """The attention map between channels, a statistic of the whole input: ``softmax(q k^T * temperature)``.

    Args:
        q: (B, C, H, W); its channels are split into consecutive heads.
        k: (B, C, H, W).
        temperature: (heads, 1, 1).

    Returns:
        (B, heads, C / heads, C / heads), rows sum to 1.
    """
    batch, channels, height, width = q.shape
    per_head = (batch, temperature.shape[0], channels // temperature.shape[0], height * width)
    # A norm over a whole picture of pixels loses too much in half precision.
    q, k = (F.normalize(at_least_float32(t.reshape(per_head)), dim=-1).to(t.dtype) for t in (q, k))
    return (q @ k.transpose(-2, -1) * temperature).softmax(dim=-1)


def attend_channels(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Mix the channels of ``v`` (B, C, H, W) by a map from :func:`channel_attention`."""
    values = v.reshape(*weights.shape[:2], weights.shape[2], -1)
    return (weights.to(v.dtype) @ values).reshape(v.shape)


class TransposedAttention(nn.Module):
    """Multi-Dconv head transposed attention, MDTA (arXiv 2111.09881, section 3.1).

    The attention map is a statistic of the whole input: a tile sees its own.

    Args:
        dim: Channels C.
        heads: Attention heads; must divide ``dim``.
        bias: Whether the convolutions have biases.

    Raises:
        InvalidValueError: ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        out: torch.Tensor = self.project_out(transposed_attention(q, k, v, self.temperature))
        return out


def check_heads(dim: int, heads: int) -> None:
    """Check that channels split evenly into heads.

    Raises:
        InvalidValueError: They do not.
    """
    if heads < 1 or dim % heads:
        raise InvalidValueError(f"{dim} channels cannot be split into {heads} heads; choose heads that divide them")
