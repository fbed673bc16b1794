"""The transformer of IPT: patches of a feature map as tokens, encoder and decoder (arXiv 2012.00364, section 3.1)."""

import copy

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention without biases, tokens first; names as those of ``torch.nn.MultiheadAttention``.

    Args:
        dim: Width E.
        heads: Attention heads.

    Attributes:
        in_proj_adapter: Called with (q, k, v) as projected and the inputs they were projected from, a tuple each, and
            returns the (q, k, v) to attend with; None: as projected. For adapters that act inside the attention.
    """

    in_proj_adapter: nn.Module | None

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.register_module("in_proj_adapter", None)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend from (L, N, E) to (S, N, E), key and value; returns (L, N, E)."""
        inputs = (query, key, value)
        q, k, v = (F.linear(x, w) for x, w in zip(inputs, self.in_proj_weight.chunk(3), strict=True))
        if self.in_proj_adapter is not None:
            q, k, v = self.in_proj_adapter((q, k, v), inputs)
        # (L, N, E) to (N, heads, L, channels of a head)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)
        out: torch.Tensor = self.out_proj(attended.permute(2, 0, 1, 3).flatten(-2))
        return out


class Layer(nn.Module):
    """What both kinds of layer have: self-attention, a feed-forward half, two norms.

    Args:
        dim: Width E.
        heads: Attention heads.

    Attributes:
        adaptir: An adapter beside the feed-forward half, on its normalised input, (L, N, E) to (L, N, E); None: none.
    """

    adaptir: nn.Module | None

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.register_module("adaptir", None)

    def feed_forward(self, y: torch.Tensor) -> torch.Tensor:
        """The feed-forward half and its adapter, on normalised tokens (L, N, E)."""
        out: torch.Tensor = self.linear2(F.relu(self.linear1(y)))
        return out if self.adaptir is None else out + self.adaptir(y)


class EncoderLayer(Layer):
    """``x += attention(norm1(x))``; ``x += feed_forward(norm2(x))``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (L, N, E) to the same shape."""
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y)
        return x + self.feed_forward(self.norm2(x))


class DecoderLayer(Layer):
    """With a second attention, to the encoder's output; queries say which task is asked for.

    Args:
        dim: Width E.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.multihead_attn = Attention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Map tokens (L, N, E) to the same shape.

        Args:
            x: (L, N, E).
            memory: The encoder's output, (L, N, E).
            query: The task's embedding, (L, 1, E).
        """
        y = self.norm1(x)
        x = x + self.self_attn(y + query, y + query, y)
        y = self.norm2(x)
        x = x + self.multihead_attn(y + query, memory, memory)
        return x + self.feed_forward(self.norm3(x))


class PositionEmbedding(nn.Module):
    """A learned embedding of every token's place.

    Args:
        tokens: Number of tokens L.
        dim: Width E.
    """

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.pe = nn.Embedding(tokens, dim)
        self.register_buffer("position_ids", torch.arange(tokens)[None])  # in published files; places are in order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the embedding to tokens (L, N, E)."""
        return x + self.pe.weight[:, None]


class Layers(nn.Module):
    """Layers in sequence, under the published name ``layers``; all start as copies of the first, as published.

    Args:
        first: The first layer.
        count: Number of layers.
    """

    def __init__(self, first: nn.Module, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(count))

    def forward(self, x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        """Map tokens (L, N, E) to the same shape; ``given`` goes to every layer."""
        for layer in self.layers:
            x = layer(x, *given)
        return x


class Body(nn.Module):
    """Features to tokens, encoder, decoder, and back to features. No norm follows either, as published.

    Args:
        channels: Channels C of the features.
        side: Side of the feature map, pixels.
        patch: Side of a token's patch, pixels; divides ``side``. A token has E = C patch^2 numbers.
        heads: Attention heads.
        layers: Layers of the encoder, and of the decoder.
        tasks: Tasks that have a query embedding of their own.
    """

    def __init__(self, channels: int, side: int, patch: int, heads: int, layers: int, tasks: int) -> None:
        super().__init__()
        dim, self.side, self.patch = channels * patch**2, side, patch
        tokens = (side // patch) ** 2
        self.linear_encoding = nn.Linear(dim, dim)
        # Dropout, of rate 0 as published, once stood between the first layer and the ReLU; the names count it.
        self.mlp_head = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Identity(), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.query_embed = nn.Embedding(tasks, tokens * dim)
        self.encoder = Layers(EncoderLayer(dim, heads), layers)
        self.decoder = Layers(DecoderLayer(dim, heads), layers)
        self.position_encoding = PositionEmbedding(tokens, dim)

    def forward(self, x: torch.Tensor, task: int) -> torch.Tensor:
        """Map features (N, C, side, side) to the same shape.

        Args:
            x: Features.
            task: Row of the query embedding.
        """
        x = F.unfold(x, self.patch, stride=self.patch).permute(2, 0, 1)
        x = x + self.linear_encoding(x)
        memory = self.encoder(self.position_encoding(x))
        query = self.query_embed.weight[task].view(x.shape[0], 1, x.shape[2])
        x = self.decoder(memory, memory, query)
        x = x + self.mlp_head(x)
        return F.fold(x.permute(1, 2, 0), self.side, self.patch, stride=self.patch)
