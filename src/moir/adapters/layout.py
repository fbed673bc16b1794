"""Where channels and positions are in a tensor of features, and how to bring them to (N, C, H, W) and back."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import TensorShapeError

Layout = Literal["nchw", "nhwc", "lnc"]
"""Feature map; feature map with channels last; or a sequence of tokens, row-major over a square (the layout of IPT)."""


def to_map(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Bring features to (N, C, H, W).

    Args:
        x: (N, C, H, W), (N, H, W, C) or (L, N, C), as ``layout`` says.
        layout: See :data:`Layout`.

    Raises:
        TensorShapeError: Tokens that are not a square.
    """
    if layout == "nchw":
        return x
    if layout == "nhwc":
        return x.permute(0, 3, 1, 2)
    length, batch, channels = x.shape
    side = math.isqrt(length)
    if side * side != length:
        raise TensorShapeError(f"{length} tokens are not a square map; the layout 'lnc' needs 1, 4, 9, ... tokens")
    return x.permute(1, 2, 0).reshape(batch, channels, side, side)


def from_map(y: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Undo :func:`to_map`."""
    if layout == "nchw":
        return y
    return y.permute(0, 2, 3, 1) if layout == "nhwc" else y.flatten(2).permute(2, 0, 1)


def channel_linear(x: torch.Tensor, linear: nn.Linear, layout: Layout) -> torch.Tensor:
    """Apply a linear layer to the channels of every position, wherever the channels are."""
    if layout == "nchw":
        return F.conv2d(x, linear.weight[..., None, None], linear.bias)
    out: torch.Tensor = linear(x)
    return out


def per_channel(values: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Shape (C,) so that it broadcasts over features."""
    return values[:, None, None] if layout == "nchw" else values
