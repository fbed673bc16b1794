"""Restormer's block for one picture: normalisation, attention between channels, gated feed-forward.

What is rearranged, beside the layout: the projection behind the attention and the attention itself are one C x C
matrix per picture, ``W_out @ softmax(...)``, so that values are multiplied once; the halves of gated channels are
computed apart, so that gating reads contiguous memory; and everything between two reductions over the whole picture
is done strip by strip.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers.gated_feed_forward import GatedFeedForward
from moir.layers.layer_norm import EPSILON, ChannelLayerNorm
from moir.layers.transposed_attention import TransposedAttention
from moir.networks.statistics import Statistics
from moir.runtime.fast.layout import Convolution, Strip, empty_map, strips, tokens


class Norm(nn.Module):
    """:class:`~moir.layers.layer_norm.ChannelLayerNorm` on channels-last maps.

    Args:
        norm: The network's.
        dtype: Precision of input and output; statistics are taken in float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, norm: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(norm, ChannelLayerNorm)
        bias = norm.body.bias
        self.register_buffer("weight", norm.body.weight.detach().to(dtype, copy=True))
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, C, H, W) to the same shape."""
        x = x.permute(0, 2, 3, 1)
        if self.bias is not None:
            out = F.layer_norm(x, self.weight.shape, self.weight, self.bias, EPSILON)
        else:  # the mean counts in the variance but stays
            wide = x.float()
            variance = (wide - wide.mean(-1, keepdim=True)).square_().mean(-1, keepdim=True)
            out = (wide * torch.rsqrt(variance + EPSILON)).to(x.dtype) * self.weight
        return out.permute(0, 3, 1, 2)


class ChannelGram:
    """The cosines between the channels of queries and keys, summed up strip by strip, in float32.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        self.products = torch.zeros(channels, channels)
        self.squares = torch.zeros(2 * channels)

    def add(self, qk: torch.Tensor) -> None:
        """Count in pixels: (1, 2C, h, w), queries before keys."""
        rows = tokens(qk)
        channels = rows.shape[1] // 2
        self.products += rows[:, :channels].t() @ rows[:, channels:]
        self.squares += (rows * rows).sum(0, dtype=torch.float32)

    def maps(self, temperature: torch.Tensor) -> torch.Tensor:
        """``softmax(cosines * temperature)`` per head (arXiv 2111.09881, eq. 1), float32.

        Returns:
            (heads, C / heads, C / heads), what :func:`~moir.layers.transposed_attention.channel_attention` gives.
        """
        heads = temperature.shape[0]
        channels = len(self.products)
        size = channels // heads
        norms = self.squares.sqrt().clamp_min(1e-12)  # as F.normalize does
        cosines = self.products / (norms[:channels, None] * norms[None, channels:])
        blocks = cosines.view(heads, size, heads, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        return (blocks * temperature).softmax(dim=-1)

    def attention(self, temperature: torch.Tensor, name: str, shared: Statistics | None) -> torch.Tensor:
        """:meth:`maps`, or what is shared under this name, as one block-diagonal matrix (C, C)."""

        def measure() -> torch.Tensor:
            return self.maps(temperature)[None]

        maps = measure() if shared is None else shared.get(name, measure)
        return torch.block_diag(*maps[0])


class Attention(nn.Module):
    """Transposed attention with the norm before it and the residual around it: ``x + MDTA(LN(x))``, in place.

    Args:
        norm: The norm before.
        attention: The network's attention.
        dtype: Precision of the arithmetic.
    """

    temperature: torch.Tensor
    project: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, norm: nn.Module, attention: TransposedAttention, dtype: torch.dtype) -> None:
        super().__init__()
        channels = attention.project_out.in_channels
        first, last = slice(2 * channels), slice(2 * channels, 3 * channels)
        self.name = attention.name
        self.norm = Norm(norm, dtype)
        self.qk = Convolution.of(attention.qkv, dtype, first)
        self.qk_depthwise = Convolution.of(attention.qkv_dwconv, dtype, first)
        self.v = Convolution.of(attention.qkv, dtype, last)
        self.v_depthwise = Convolution.of(attention.qkv_dwconv, dtype, last)
        bias = attention.project_out.bias
        self.register_buffer("temperature", attention.temperature.detach().clone())
        self.register_buffer("project", attention.project_out.weight.detach().flatten(1).clone())
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))

    def forward(self, x: torch.Tensor, spare: torch.Tensor, shared: Statistics | None = None) -> torch.Tensor:
        """Update ``x`` (1, C, H, W) in place; ``spare`` is another map like it, which is overwritten.

        Where the attention map is shared and known, queries and keys are not computed at all.
        """
        known = shared is not None and shared.known
        gram = ChannelGram(x.shape[1])
        for strip in strips(x, self.qk.weight.shape[0], self.qk_depthwise.padding):
            normed = self.norm(strip.widened(x))
            if not known:
                gram.add(strip.crop(self.qk_depthwise(self.qk(normed))))
            strip.of(spare).copy_(strip.crop(self.v_depthwise(self.v(normed))))
        add_mixed(x, spare, self.project @ gram.attention(self.temperature, self.name, shared), self.bias)
        return x


def add_mixed(x: torch.Tensor, v: torch.Tensor, mix: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """``x += mix @ v + bias`` for every pixel, in place; x, v (1, C, H, W) and ``mix`` (C, C), float32."""
    weight = mix.to(x.dtype)[:, :, None, None]
    for strip in strips(x, x.shape[1]):
        strip.of(x).add_(F.conv2d(strip.of(v), weight, bias))


class FeedForward(nn.Module):
    """Gated feed-forward with the norm before it and the residual around it: ``x + GDFN(LN(x))``.

    Args:
        norm: The norm before.
        feed_forward: The network's.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, norm: nn.Module, feed_forward: GatedFeedForward, dtype: torch.dtype) -> None:
        super().__init__()
        hidden = feed_forward.project_out.in_channels
        gate, value = slice(hidden), slice(hidden, 2 * hidden)
        self.norm = Norm(norm, dtype)
        self.gate = Convolution.of(feed_forward.project_in, dtype, gate)
        self.gate_depthwise = Convolution.of(feed_forward.dwconv, dtype, gate)
        self.value = Convolution.of(feed_forward.project_in, dtype, value)
        self.value_depthwise = Convolution.of(feed_forward.dwconv, dtype, value)
        self.project = Convolution.of(feed_forward.project_out, dtype)

    def forward(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (1, C, H, W) into ``out``, another map like it."""
        for strip in self._strips(x):
            normed = self.norm(strip.widened(x))
            gated = F.gelu(strip.crop(self.gate_depthwise(self.gate(normed))))
            gated.mul_(strip.crop(self.value_depthwise(self.value(normed))))
            torch.add(strip.of(x), self.project(gated), out=strip.of(out))
        return out

    def _strips(self, x: torch.Tensor) -> Iterator[Strip]:
        return strips(x, self.gate.weight.shape[0], self.gate_depthwise.padding)


class Block(nn.Module):
    """``x + MDTA(LN(x))``, then ``x + GDFN(LN(x))``.

    Args:
        norms: The two norms.
        attention: The network's attention.
        feed_forward: The network's feed-forward half.
        dtype: Precision of the arithmetic.
    """

    def __init__(
        self,
        norms: tuple[nn.Module, nn.Module],
        attention: TransposedAttention,
        feed_forward: GatedFeedForward,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.attention = Attention(norms[0], attention, dtype)
        self.feed_forward = FeedForward(norms[1], feed_forward, dtype)

    def forward(self, x: torch.Tensor, spare: torch.Tensor, shared: Statistics | None = None) -> torch.Tensor:
        """Map ``x`` (1, C, H, W) into ``spare``, another map like it; ``x`` is overwritten."""
        out: torch.Tensor = self.feed_forward(self.attention(x, spare, shared), spare)
        return out


class Blocks(nn.Module):
    """Blocks in sequence, on two maps that take turns.

    Args:
        blocks: Modules that map one map into another and may overwrite the first, as :class:`Block` does.
    """

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor, shared: Statistics | None = None) -> torch.Tensor:
        """Map ``x`` (1, C, H, W) to the same shape; ``x`` is overwritten.

        Args:
            x: The features.
            shared: Holds the attention maps of the whole picture, or writes down those measured here.
        """
        spare = empty_map(x)
        for block in self.blocks:
            x, spare = block(x, spare, shared), x
        return x
