"""The blocks of MoCE-IR: encoder block, frequency embedding, and the decoder block with its complexity experts.

Paper: "Complexity Experts are Task-Discriminative Learners for Any Image Restoration" (arXiv 2411.18466), section 3.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from moir.experts.dispatch import dispatch
from moir.experts.gate import ComplexityScale, ExpertGate, Routing
from moir.layers.gated_feed_forward import GatedFeedForward
from moir.layers.layer_norm import ChannelLayerNorm
from moir.layers.precision import at_least_float32
from moir.layers.transposed_attention import Shared, TransposedAttention, attend_channels, check_heads, shared_map
from moir.networks.moce_ir_expert import ComplexityExpert, ExpertDepth

SMALLEST_WINDOW = 4  # of expert 0; it doubles with every further expert


class EncoderBlock(nn.Module):
    """``x += MDTA(LN(x))``, then ``x += GDFN(LN(x))``: Restormer's block under MoCE-IR's names, with biases.

    Args:
        dim: Channels C.
        heads: Attention heads.
        expansion: Hidden width of the feed-forward half over ``dim``.
    """

    def __init__(self, dim: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ChannelLayerNorm(dim), ChannelLayerNorm(dim)])
        self.mixer = TransposedAttention(dim, heads, bias=True)
        self.ffn = GatedFeedForward(dim, expansion, bias=True)

    def forward(self, x: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); for ``shared`` see :class:`TransposedAttention`."""
        x = x + self.mixer(self.norms[0](x), shared)
        out: torch.Tensor = x + self.ffn(self.norms[1](x))
        return out


class EncoderBlocks(nn.Module):
    """A sequence of encoder blocks under the published name ``layers``."""

    def __init__(self, count: int, dim: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(EncoderBlock(dim, heads, expansion) for _ in range(count)))

    def forward(self, x: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); for ``shared`` see :class:`TransposedAttention`."""
        for layer in self.layers:
            x = layer(x, shared)
        return x


class _HighPass(nn.Module):
    """Depthwise 3x3 Laplacian to start with; the published freezing has no effect, so it is trained with the rest."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(-1)
            self.conv.weight[:, :, 1, 1] = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return out


class FrequencyEmbedding(nn.Module):
    """What the high frequencies of the latent features say about the whole picture (section 3.2).

    Args:
        dim: Channels C of the latent features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.high_conv = nn.Sequential(_HighPass(dim), nn.GELU())
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C)."""
        pooled = at_least_float32(self.high_conv(x)).mean(dim=(2, 3))
        with torch.autocast(x.device.type, enabled=False):  # routes depend on it; it costs nothing
            out: torch.Tensor = self.mlp(pooled.to(next(self.mlp.parameters()).dtype))
        return out


class CrossAttention(nn.Module):
    """Transposed attention with queries from one input, keys and values from another.

    Args:
        dim: Channels C.
        heads: Attention heads.
        kernel: Side of the depthwise kernel of keys and values.
    """

    def __init__(self, dim: int, heads: int, kernel: int = 7) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = nn.Conv2d(dim, dim, 1, bias=False)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.kv_dwconv = nn.Conv2d(2 * dim, 2 * dim, kernel, padding=kernel // 2, groups=2 * dim, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)
        self.name = ""

    def forward(self, x: torch.Tensor, y: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map queries' input ``x`` and keys' and values' input ``y``, both (B, C, H, W), to (B, C, H, W).

        Args:
            x: (B, C, H, W).
            y: (B, C, H, W).
            shared: See :class:`TransposedAttention`.
        """
        q = self.q_dwconv(self.q(x))
        k, v = self.kv_dwconv(self.kv(y)).chunk(2, dim=1)
        weights = shared_map(self.name, q, k, self.temperature, shared)
        out: torch.Tensor = self.project_out(attend_channels(weights, v))
        return out


@dataclass(frozen=True)
class ExpertOptions:
    """The experts of one decoder level: widths and depths, and how their gate chooses."""

    ranks: list[int]
    depths: list[int]
    depth_mode: ExpertDepth
    topk: int
    with_complexity: bool
    complexity_scale: ComplexityScale


class _Single(nn.ModuleList):
    """One expert, in a list of its own: that makes the published names ``experts.0.0.body``."""

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self[0](x, shared)
        return out


class Router(Protocol):
    """Asks a gate, or recalls what it decided before: (gate, features (B, C, H, W)) to its routing."""

    def __call__(self, gate: ExpertGate, features: torch.Tensor) -> Routing:
        """Route (B, C, H, W)."""


class ComplexityAdapter(nn.Module):
    """The complexity experts of one decoder block, with their gate.

    Args:
        dim: Channels C.
        embedding_dim: Channels of the frequency embedding.
        options: The experts.
    """

    def __init__(self, dim: int, embedding_dim: int, options: ExpertOptions) -> None:
        super().__init__()
        experts = [
            _Single([ComplexityExpert(dim, rank, SMALLEST_WINDOW * 2**i, depth, options.depth_mode)])
            for i, (rank, depth) in enumerate(zip(options.ranks, options.depths, strict=True))
        ]
        self.experts = nn.ModuleList(experts)
        self.proj_out = nn.Conv2d(dim, dim, 1, bias=False)
        self.routing = ExpertGate(
            dim,
            embedding_dim,
            [sum(p.numel() for p in expert.parameters()) for expert in experts],
            options.topk,
            options.with_complexity,
            options.complexity_scale,
        )

    def forward(self, x: torch.Tensor, shared: torch.Tensor, route: Router) -> torch.Tensor:
        """Map features and shared features, both (B, C, H, W), to (B, C, H, W)."""
        routing = route(self.routing, x)
        out: torch.Tensor = self.proj_out(dispatch(self.experts, (x, shared), routing.experts, routing.gates))
        return out


class DecoderBlock(nn.Module):
    """Shared attention and complexity experts side by side, joined by cross attention (section 3.1, figure 3).

    Args:
        dim: Channels C.
        heads: Attention heads.
        expansion: Hidden width of the feed-forward half over ``dim``.
        embedding_dim: Channels of the frequency embedding.
        options: The experts.
    """

    def __init__(self, dim: int, heads: int, expansion: float, embedding_dim: int, options: ExpertOptions) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ChannelLayerNorm(dim), ChannelLayerNorm(dim)])
        self.proj = nn.ModuleList([nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)])
        self.shared = TransposedAttention(dim, heads, bias=False)
        self.mixer = CrossAttention(dim, heads)
        self.ffn = GatedFeedForward(dim, expansion, bias=False)
        self.adapter = ComplexityAdapter(dim, embedding_dim, options)

    def forward(self, x: torch.Tensor, route: Router, maps: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); ``maps`` are the attention maps that tiles share."""
        normed = self.norms[0](x)
        shared = self.shared(self.proj[0](normed), maps)
        special = self.adapter(self.proj[1](normed), shared, route)
        x = x + self.mixer(special, shared, maps)
        out: torch.Tensor = x + self.ffn(self.norms[1](x))
        return out


class DecoderBlocks(nn.Module):
    """A sequence of decoder blocks under the published name ``layers``."""

    def __init__(
        self, count: int, dim: int, heads: int, expansion: float, embedding_dim: int, options: ExpertOptions
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderBlock(dim, heads, expansion, embedding_dim, options) for _ in range(count)])

    def forward(self, x: torch.Tensor, route: Router, maps: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); ``maps`` are the attention maps that tiles share."""
        for layer in self.layers:
            x = layer(x, route, maps)
        return x
