"""Bottleneck adapters: the sequential one, AdaptFormer beside the feed-forward half, a plain mixture of experts."""

import torch
import torch.nn.functional as F
from torch import nn

from moir.adapters.base import Adapter
from moir.adapters.layout import Layout, channel_linear, per_channel, to_map
from moir.base.errors import InvalidValueError


class BottleneckAdapter(Adapter):
    """``y += up(relu(down(y)))`` after a frozen layer (Houlsby et al., ICML 2019, arXiv 1902.00751, figure 2).

    Args:
        dim: Channels of the layer's output.
        rank: Channels between down and up.
        layout: Of the layer's output.
    """

    def __init__(self, dim: int, rank: int = 12, layout: Layout = "nchw") -> None:
        super().__init__()
        self.layout = layout
        self.down, self.up = _bottleneck(dim, dim, rank)

    def adapt(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.adapt`; only the output ``y`` is looked at."""
        return y + self.change(y)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`; ``x`` is the layer's output here."""
        hidden = torch.relu(channel_linear(x, self.down, self.layout))
        return channel_linear(hidden, self.up, self.layout)


class AdaptFormer(Adapter):
    """``scale * up(relu(down(x)))`` in parallel to the feed-forward half (arXiv 2205.13535, section 3.2).

    Args:
        dim: Channels of the input.
        out_dim: Channels of the output; None: as the input.
        rank: Channels between down and up.
        scale: Fixed.
        layout: Of input and output.
    """

    def __init__(
        self, dim: int, out_dim: int | None = None, rank: int = 24, scale: float = 0.1, layout: Layout = "nchw"
    ) -> None:
        super().__init__()
        self.layout, self.scale = layout, scale
        self.down, self.up = _bottleneck(dim, dim if out_dim is None else out_dim, rank)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`."""
        hidden = torch.relu(channel_linear(x, self.down, self.layout))
        return self.scale * channel_linear(hidden, self.up, self.layout)


class MixtureAdapter(Adapter):
    """A plain mixture of like experts, in parallel to the feed-forward half.

    Down to ``rank`` channels, ``experts`` experts ``gelu(scale * z)`` with a scale per channel each, mixed by a softmax
    over a linear map of the mean features of the whole map, and up again. What AdaptIR was compared to under the name
    MoE is not published; this one has the number of parameters that is.

    Args:
        dim: Channels of the input.
        out_dim: Channels of the output; None: as the input.
        rank: Channels of the experts.
        experts: Number of experts.
        layout: Of input and output.
    """

    def __init__(
        self, dim: int, out_dim: int | None = None, rank: int = 24, experts: int = 3, layout: Layout = "nchw"
    ) -> None:
        super().__init__()
        if experts < 1:
            raise InvalidValueError(f"experts={experts}: a mixture needs at least one")
        self.layout = layout
        self.down, self.up = _bottleneck(dim, dim if out_dim is None else out_dim, rank, up_bias=False)
        self.scales = nn.Parameter(1 + 0.1 * torch.randn(experts, rank))  # apart from the start, or all learn the same
        self.router = nn.Linear(rank, experts, bias=False)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`."""
        z = channel_linear(x, self.down, self.layout)
        gates = self.router(to_map(z, self.layout).mean(dim=(2, 3))).softmax(dim=-1)  # (N, experts)
        mixed = torch.zeros_like(z)
        for scale, gate in zip(self.scales, gates.unbind(1), strict=True):
            share = gate[:, None] if self.layout == "lnc" else gate[:, None, None, None]
            mixed = mixed + share * F.gelu(per_channel(scale, self.layout) * z)
        return channel_linear(mixed, self.up, self.layout)


def _bottleneck(dim: int, out_dim: int, rank: int, up_bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """Down and up; up starts at zero, so that at first nothing changes."""
    if rank < 1:
        raise InvalidValueError(f"rank={rank}: a bottleneck needs at least one channel")
    down, up = nn.Linear(dim, rank), nn.Linear(rank, out_dim, bias=up_bias)
    for parameter in (down.bias, *up.parameters()):
        nn.init.zeros_(parameter)
    return down, up
