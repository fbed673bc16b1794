"""Visual prompts: learned tokens that every position can read from (VPT)."""

import torch
from torch import nn

from moir.adapters.base import Adapter
from moir.adapters.layout import Layout, from_map, to_map
from moir.base.errors import InvalidValueError


class VisualPrompts(Adapter):
    """Deep visual prompts (VPT, arXiv 2203.12119), read by attention beside each block.

    Published, prompts are further tokens of the sequence, dropped after each block: attention over tokens and prompts
    together is a mean of attention over the tokens and attention over the prompts, weighted by the positions
    (arXiv 2110.04366, section 3.1). Networks without a sequence have no place for tokens, and further tokens change
    the output from the start. So here the second part alone is added: ``softmax(x (keys + p)^T / sqrt(dim)) p``, with
    prompts ``p`` that start at zero and fixed random ``keys`` that tell them apart. As many numbers are trained as
    published: ``count * dim`` per block.

    Args:
        dim: Channels of input and output.
        out_dim: Must be ``dim`` or None: prompts are features of the block.
        count: Prompts.
        layout: Of input and output.

    Raises:
        InvalidValueError: No prompt, or another width of the output.
    """

    keys: torch.Tensor

    def __init__(self, dim: int, out_dim: int | None = None, count: int = 64, layout: Layout = "nchw") -> None:
        super().__init__()
        if count < 1 or out_dim not in (None, dim):
            raise InvalidValueError(f"count={count}, out_dim={out_dim}: prompts need a count >= 1 and {dim} channels")
        self.layout = layout
        self.prompts = nn.Parameter(torch.zeros(count, dim))
        self.register_buffer("keys", torch.randn(count, dim))

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`."""
        features = to_map(x, self.layout)
        keys = (self.keys + self.prompts) * features.shape[1] ** -0.5
        weights = torch.einsum("nchw,pc->nphw", features, keys).softmax(dim=1)
        return from_map(torch.einsum("nphw,pc->nchw", weights, self.prompts), self.layout)
