"""Attention between channels instead of pixels: linear in the number of pixels (MDTA of Restormer)."""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.precision import at_least_float32

ATTENTION = ".attention"
"""How the names of shared attention maps end."""


class Shared(Protocol):
    """What tiles of one picture share: :class:`moir.networks.statistics.Statistics`."""

    def get(self, name: str, measure: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The statistic of that name; measured here and now if it is not known."""


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

    The attention map is a statistic of the whole input. A tile sees its own, unless it is given that of its picture.

    Args:
        dim: Channels C.
        heads: Attention heads; must divide ``dim``.
        bias: Whether the convolutions have biases.

    Attributes:
        name: Under which the attention map is shared; see :func:`name_attention`.

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
        self.name = ""

    def forward(self, x: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W).

        Args:
            x: (B, C, H, W).
            shared: Holds the attention map of the whole picture, or writes down the one that is measured here; None:
                measured here.
        """
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        weights = shared_map(self.name, q, k, self.temperature, shared)
        out: torch.Tensor = self.project_out(attend_channels(weights, v))
        return out


def shared_map(
    name: str, q: torch.Tensor, k: torch.Tensor, temperature: torch.Tensor, shared: Shared | None
) -> torch.Tensor:
    """:func:`channel_attention`, or what is shared under this name."""

    def measure() -> torch.Tensor:
        return channel_attention(q, k, temperature)

    return measure() if shared is None else shared.get(name, measure)


def name_attention(network: nn.Module, kinds: tuple[type[nn.Module], ...] = (TransposedAttention,)) -> None:
    """Give every attention of these kinds the name under which its map is shared: its own, in the network."""
    for name, module in network.named_modules():
        if isinstance(module, kinds):
            module.name = f"{name}{ATTENTION}"  # type: ignore[assignment]


def check_heads(dim: int, heads: int) -> None:
    """Check that channels split evenly into heads.

    Raises:
        InvalidValueError: They do not.
    """
    if heads < 1 or dim % heads:
        raise InvalidValueError(f"{dim} channels cannot be split into {heads} heads; choose heads that divide them")
