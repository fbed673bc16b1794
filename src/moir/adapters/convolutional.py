"""A convolutional bottleneck: what adapters of transformers lack on networks of dense convolutions, a look around."""

import torch
from torch import nn

from moir.adapters.base import Adapter
from moir.adapters.layout import Layout, from_map, to_map
from moir.base.errors import InvalidValueError


class ConvolutionalAdapter(Adapter):
    """``up(relu(down(x)))`` in parallel to a block's feed-forward half, both of them 3x3 convolutions (own).

    A bottleneck of 1x1 convolutions (AdaptFormer) mixes channels where they are, and a low-rank change of a convolution
    (LoRA) is linear in it. New damage of single pixels, dead or saturated ones, takes a comparison with the neighbours:
    a look around and a non-linearity after it. Nothing here depends on the whole map, so tiles stay what they were.

    Args:
        dim: Channels of the input.
        out_dim: Channels of the output; None: as the input.
        rank: Channels inside.
        layout: Of input and output.

    Raises:
        InvalidValueError: A rank below 1.
    """

    def __init__(self, dim: int, out_dim: int | None = None, rank: int = 6, layout: Layout = "nchw") -> None:
        super().__init__()
        if rank < 1:
            raise InvalidValueError(f"rank={rank}: a bottleneck needs at least one channel")
        self.layout = layout
        self.down = nn.Conv2d(dim, rank, 3, padding=1)
        self.up = nn.Conv2d(rank, dim if out_dim is None else out_dim, 3, padding=1)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`."""
        features = to_map(x, self.layout)
        return from_map(self.up(torch.relu(self.down(features))), self.layout)
