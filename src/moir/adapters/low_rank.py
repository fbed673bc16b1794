"""Low-rank changes of frozen weights: LoRA, and FacT, whose factors are shared by all layers of one shape."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from moir.adapters.base import Adapter
from moir.adapters.layout import Layout
from moir.base.errors import InvalidValueError


class LoRA(Adapter):
    """A low-rank change of a linear layer's or convolution's weight (arXiv 2106.09685, section 4.1).

    For a convolution: one to ``rank`` channels with the frozen one's kernel, stride and padding, then 1x1.
    (:class:`moir.layers.lora_conv.LoRAConv2d` factors the kernel otherwise, as a published checkpoint does.)

    Args:
        layer: The frozen ``nn.Linear`` or ``nn.Conv2d`` (ungrouped).
        rank: Rank of the change.
        alpha: The change is scaled by ``alpha / rank``; None: by 1.

    Raises:
        InvalidValueError: A rank below 1, or a grouped convolution.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float | None = None) -> None:
        super().__init__()
        check_rank(rank)
        self.scaling = 1.0 if alpha is None else alpha / rank
        if isinstance(layer, nn.Conv2d):
            if layer.groups != 1:
                raise InvalidValueError(f"LoRA needs an ungrouped convolution, got {layer.groups} groups")
            self.down: nn.Module = _like(layer, rank)
            self.up: nn.Module = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self._down, a=math.sqrt(5))
        nn.init.zeros_(self._up)

    @property
    def _down(self) -> torch.Tensor:
        return self.down.get_parameter("weight")

    @property
    def _up(self) -> torch.Tensor:
        return self.up.get_parameter("weight")

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`."""
        out: torch.Tensor = self.up(self.down(x))
        return self.scaling * out

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`moir.adapters.base.Mergeable`."""
        change = self._up.flatten(1) @ self._down.flatten(1)
        return weight + self.scaling * change.view(weight.shape), bias


class FacTCore(nn.Module):
    """What all weights of one shape share in FacT-TK: ``dW_i = up (core p_i) down`` (arXiv 2212.03145, section 3.3).

    Args:
        in_dim, out_dim: Shape of the weights.
        rank: Of all three modes of the core.
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int) -> None:
        super().__init__()
        check_rank(rank)
        self.down = nn.Parameter(torch.randn(rank, in_dim) * in_dim**-0.5)
        self.up = nn.Parameter(torch.zeros(out_dim, rank))
        self.core = nn.Parameter(torch.randn(rank, rank, rank) / rank)

    def change(self, slices: torch.Tensor) -> torch.Tensor:
        """The changes (k * out, in) of k weights from their slices (k, rank)."""
        inner = torch.einsum("ki,abi->kab", slices, self.core)
        return (self.up @ inner @ self.down).flatten(0, 1)


class FacT(Adapter):
    """A linear layer's or 1x1 convolution's own slice of a shared decomposition (FacT, arXiv 2212.03145).

    Args:
        core: What it shares; registered once, at the network, and not here.
        layout: ``"nchw"`` beside a convolution.
    """

    def __init__(self, core: FacTCore, layout: Layout = "nhwc") -> None:
        super().__init__()
        self._shared = (core,)  # in a tuple, so that it is not registered once more
        self.layout = layout
        self.slices = nn.Parameter(torch.randn(1, core.core.shape[0]))

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.change`."""
        weight = self._shared[0].change(self.slices)
        return F.conv2d(x, weight[..., None, None]) if self.layout == "nchw" else F.linear(x, weight)

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`moir.adapters.base.Mergeable`."""
        return weight + self._shared[0].change(self.slices).view(weight.shape), bias


def check_rank(rank: int) -> None:
    """Check a rank.

    Raises:
        InvalidValueError: It is below 1.
    """
    if rank < 1:
        raise InvalidValueError(f"a rank of {rank} is not possible; use 1 or more")


def _like(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A convolution of the same kind (also a subclass with its own borders), to another number of channels."""
    plain = nn.Conv2d(
        conv.in_channels,
        channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=False,
        padding_mode=conv.padding_mode,
    )
    plain.__class__ = type(conv)
    return plain
