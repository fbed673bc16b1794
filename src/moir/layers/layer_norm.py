"""Layer normalisation over the channels of a feature map (Restormer, arXiv 2111.09881, section 3)."""

from typing import Literal, get_args

import torch
from torch import nn

from moir.base.names import check_name
from moir.layers.precision import at_least_float32

LayerNormType = Literal["WithBias", "BiasFree"]

EPSILON = 1e-5  # added to the variance, as published


class _Affine(nn.Module):
    """Holds the weights under the published name ``body``."""

    def __init__(self, dim: int, with_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if with_bias else None


class ChannelLayerNorm(nn.Module):
    """Normalise every pixel over its channels, with the biased variance.

    ``"WithBias"`` is ``(x - mean) / sqrt(var + eps) * weight + bias``. ``"BiasFree"`` is
    ``x / sqrt(var + eps) * weight``: the mean enters the variance but is not removed.
    The statistics are taken in float32 whatever the input's precision. State-dict names are ``body.weight`` and
    ``body.bias``.

    Args:
        dim: Channels C.
        kind: ``"WithBias"`` or ``"BiasFree"`` (the published option ``LayerNorm_type``).

    Raises:
        UnknownNameError: Another ``kind``.
    """

    def __init__(self, dim: int, kind: LayerNormType = "WithBias") -> None:
        super().__init__()
        check_name(kind, get_args(LayerNormType), "LayerNorm_type")
        self.body = _Affine(dim, with_bias=kind == "WithBias")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W) to the same shape and precision."""
        wide = at_least_float32(x)
        variance, mean = torch.var_mean(wide, dim=1, keepdim=True, correction=0)
        scale = torch.rsqrt(variance + EPSILON)
        weight, bias = self.body.weight[:, None, None], self.body.bias
        if bias is None:
            return (wide * scale * weight).to(x.dtype)
        return ((wide - mean) * scale * weight + bias[:, None, None]).to(x.dtype)
