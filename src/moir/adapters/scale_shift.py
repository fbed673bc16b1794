"""Scaling and shifting of frozen features (SSF)."""

import torch
from torch import nn

from moir.adapters.base import Adapter
from moir.adapters.layout import Layout, per_channel


class ScaleShift(Adapter):
    """``y * scale + shift`` per channel, after a frozen layer (SSF, arXiv 2210.08823, section 3.2).

    Args:
        dim: Channels of the layer's output.
        layout: Of the layer's output.
        shift: Whether there is a shift. Without one it can be written into layers that have no bias.
    """

    def __init__(self, dim: int, layout: Layout = "nchw", shift: bool = True) -> None:
        super().__init__()
        self.layout = layout
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim)) if shift else None

    def adapt(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.adapt`."""
        scaled = y * per_channel(self.scale, self.layout)
        return scaled if self.shift is None else scaled + per_channel(self.shift, self.layout)

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`moir.adapters.base.Mergeable`; output channels come first in the weight."""
        scaled = weight * self.scale.view(-1, *[1] * (weight.dim() - 1))
        if self.shift is None:
            return scaled, None if bias is None else bias * self.scale
        return scaled, self.shift if bias is None else bias * self.scale + self.shift
