"""The block that Restormer, PromptIR and their descendants are made of."""

import torch
from torch import nn

from moir.layers.gated_feed_forward import GatedFeedForward
from moir.layers.layer_norm import ChannelLayerNorm, LayerNormType
from moir.layers.transposed_attention import Shared, TransposedAttention


class TransformerBlock(nn.Module):
    """``x += MDTA(LN(x))``, then ``x += GDFN(LN(x))`` (Restormer, arXiv 2111.09881, figure 2).

    State-dict names are the published ones: ``norm1.body``, ``attn``, ``norm2.body``, ``ffn``.

    Args:
        dim: Channels C.
        heads: Attention heads; must divide ``dim``.
        expansion: Hidden width of the feed-forward half over ``dim``.
        bias: Whether the convolutions have biases.
        norm: ``"WithBias"`` or ``"BiasFree"``.
    """

    def __init__(
        self, dim: int, heads: int, expansion: float, bias: bool = False, norm: LayerNormType = "WithBias"
    ) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(dim, norm)
        self.attn = TransposedAttention(dim, heads, bias)
        self.norm2 = ChannelLayerNorm(dim, norm)
        self.ffn = GatedFeedForward(dim, expansion, bias)

    def forward(self, x: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); for ``shared`` see :class:`TransposedAttention`."""
        x = x + self.attn(self.norm1(x), shared)
        out: torch.Tensor = x + self.ffn(self.norm2(x))
        return out


class TransformerBlocks(nn.Sequential):
    """Blocks in sequence."""

    def forward(self, x: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); for ``shared`` see :class:`TransposedAttention`."""
        for block in self:
            x = block(x, shared)
        return x


def transformer_blocks(
    count: int, dim: int, heads: int, expansion: float, bias: bool = False, norm: LayerNormType = "WithBias"
) -> TransformerBlocks:
    """``count`` blocks of one width in sequence."""
    return TransformerBlocks(*(TransformerBlock(dim, heads, expansion, bias, norm) for _ in range(count)))
