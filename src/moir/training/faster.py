"""The same layers in forms that train faster: equal functions, other steps, the same parameters.

The modules of :mod:`moir.layers` and :mod:`moir.networks` are written as published. :func:`use_faster_forms` gives some
of them another ``forward``; names, parameters and results (up to rounding) stay. What each form gains is in
``benchmarks/speed/notes_training.md``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.grad import conv2d_input, conv2d_weight

from moir.layers.layer_norm import EPSILON, ChannelLayerNorm
from moir.layers.precision import at_least_float32
from moir.layers.transposed_attention import Shared, TransposedAttention, transposed_attention
from moir.networks.moce_ir_blocks import CrossAttention

STRIP = 3
"""Columns of a depthwise kernel whose gradient is computed at a time: oneDNN is fast up to this width, and some thirty
times slower beyond it."""


def use_faster_forms(network: nn.Module) -> int:
    """Exchange the forward of every layer that has a faster form.

    Layers that are anything but the plain class (with a low-rank update inside, for instance) stay as they are, and so
    do layers with hooks: a folded convolution is not called, so that its hooks would not be, either.

    Args:
        network: Changed in place. Its state dict is not.

    Returns:
        How many layers changed.
    """
    changed = 0
    for module in network.modules():
        form = _form_of(module)
        if form is not None:
            module.__class__ = form
            changed += 1
    return changed


def _form_of(module: nn.Module) -> type[nn.Module] | None:
    if type(module) is ChannelLayerNorm and module.body.bias is not None:
        return FusedLayerNorm
    if type(module) is TransposedAttention and _is_plain(module.project_out):
        return FoldedAttention
    if type(module) is CrossAttention and _is_plain(module.project_out):
        return FoldedCrossAttention
    if type(module) is nn.Conv2d and _is_wide_depthwise(module):
        return WideDepthwise
    return None


def _is_plain(conv: nn.Module) -> bool:
    return type(conv) is nn.Conv2d and not conv._forward_hooks and not conv._forward_pre_hooks


def _is_wide_depthwise(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size[1] > STRIP
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


class FusedLayerNorm(ChannelLayerNorm):
    """Layer normalisation as one operation over the last dimension, which channels-last pictures have contiguous."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W) to the same shape and precision."""
        # CPUs take half-precision pictures with float32 weights, and compute in float32; GPUs want one precision.
        wide = x if x.device.type == "cpu" else at_least_float32(x)
        weight = self.body.weight
        normal = F.layer_norm(wide.permute(0, 2, 3, 1), weight.shape, weight, self.body.bias, EPSILON)
        return normal.permute(0, 3, 1, 2).to(x.dtype)


class FoldedAttention(TransposedAttention):
    """MDTA with its last two products in one: see :func:`folded_attention`."""

    def forward(self, x: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W); where attention maps are shared, as the plain layer does."""
        if shared is not None:
            return super().forward(x, shared)
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        return folded_attention(q, k, v, self.temperature, self.project_out)


class FoldedCrossAttention(CrossAttention):
    """MoCE-IR's cross attention with its last two products in one: see :func:`folded_attention`."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, shared: Shared | None = None) -> torch.Tensor:
        """See :meth:`CrossAttention.forward`; where attention maps are shared, as the plain layer does."""
        if shared is not None:
            return super().forward(x, y, shared)
        q = self.q_dwconv(self.q(x))
        k, v = self.kv_dwconv(self.kv(y)).chunk(2, dim=1)
        return folded_attention(q, k, v, self.temperature, self.project_out)


def folded_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor, project: nn.Conv2d
) -> torch.Tensor:
    """``project(transposed_attention(q, k, v))`` with ``W (A v) = (W A) v``: one C x C matrix per picture.

    ``q k^T`` is divided by the norms afterwards, so that neither q nor k is written again; all heads are one product,
    of which the blocks on the diagonal are kept: C columns at once are faster than C / heads at a time.

    Args:
        q, k, v: (B, C, H, W).
        temperature: (heads, 1, 1).
        project: The 1x1 convolution that follows.

    Returns:
        (B, C, H, W), channels-last.
    """
    if q.dtype is torch.float16:  # products of vectors that are not normalised leave its range
        out: torch.Tensor = project(transposed_attention(q, k, v, temperature))
        return out
    batch, channels, height, width = q.shape
    heads, size = temperature.shape[0], channels // temperature.shape[0]
    q, k, v = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (q, k, v))  # (B, HW, C); no copy if channels-last
    products = (q.mT @ k).view(batch, heads, size, heads, size).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    wide = torch.promote_types(q.dtype, torch.float32)
    of_q, of_k = (_Norms.apply(t, wide).view(batch, heads, size) for t in (q, k))
    with torch.autocast(q.device.type, enabled=False):
        cosines = products.to(wide) / (of_q[..., :, None] * of_k[..., None, :])
        weights = (cosines * temperature).softmax(dim=-1)
        matrix = torch.einsum("ohc,bhcd->bhdo", project.weight.to(wide).view(-1, heads, size), weights).flatten(1, 2)
    mixed = v @ matrix.to(v.dtype)
    if project.bias is not None:
        mixed = mixed + project.bias.to(mixed.dtype)
    return mixed.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class _Norms(torch.autograd.Function):
    """Norms of (B, N, C) over N, at least 1e-12; PyTorch's gradient passes over the pixels three times, not once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        norms = torch.linalg.vector_norm(x, dim=1, dtype=dtype).clamp(min=1e-12)
        ctx.save_for_backward(x, norms)
        return norms

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, norms), (gradient,) = ctx.saved_tensors, gradients
        return x * (gradient / norms).to(x.dtype)[:, None], None


class WideDepthwise(nn.Conv2d):
    """A depthwise convolution wider than 3 pixels, whose weights' gradient is computed in strips of 3 columns."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        device = input.device.type
        if device != "cpu":
            return super()._conv_forward(input, weight, bias)
        if torch.is_autocast_enabled(device):  # it knows convolutions, but not functions of our own
            half = torch.get_autocast_dtype(device)
            input, weight = input.to(half), weight.to(half)
            bias = None if bias is None else bias.to(half)
        assert not isinstance(self.padding, str)
        out: torch.Tensor = _WideDepthwise.apply(input, weight, bias, tuple(self.padding))
        return out


class _WideDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: tuple[int, int]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), (gradient,) = ctx.saved_tensors, gradients
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            groups = weight.shape[0]
            of_x = conv2d_input(x.shape, weight, gradient, padding=ctx.padding, groups=groups)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, weight, gradient, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_x, of_weight, of_bias, None


def _weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, padding: tuple[int, int]
) -> torch.Tensor:
    """The gradient of a depthwise kernel (C, 1, h, w): a strip is a narrow kernel, over an input that begins later."""
    channels, _, rows, columns = weight.shape
    down, right = padding
    surplus = -columns % STRIP  # the last strip is as wide as the others; what is too much is cut off
    padded = F.pad(x, (right, right + surplus, down, down))
    strips = []
    for start in range(0, columns, STRIP):
        part = padded[..., start : start + gradient.shape[-1] + STRIP - 1].contiguous(memory_format=torch.channels_last)
        shape = (channels, 1, rows, STRIP)
        strips.append(conv2d_weight(part, shape, gradient, groups=channels))
    return torch.cat(strips, dim=-1)[..., :columns]
