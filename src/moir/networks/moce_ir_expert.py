"""The complexity experts of MoCE-IR: the same operation with growing window and width.

Paper: "Complexity Experts are Task-Discriminative Learners for Any Image Restoration" (arXiv 2411.18466), section 3.2.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.layers import tracing
from moir.layers.layer_norm import ChannelLayerNorm
from moir.layers.precision import at_least_float32

RankType = Literal["constant", "lin", "double", "exp", "fact", "spread"]
DepthType = Literal["constant", "lin", "double", "exp", "fact"]
ExpertDepth = Literal["published", "stacked"]


def expert_ranks(rank_type: RankType, rank: int, dim: int, num_experts: int) -> list[int]:
    """Inner width of every expert, i = 0 to n - 1.

    constant: ``rank``; lin: ``rank + i``; double: ``rank + 2i``; exp: ``rank^(i+1)``; fact: ``(rank+i)!``; spread:
    ``dim // 2^(n-1-i)``, which takes no ``rank``.

    Raises:
        UnknownNameError: Another ``rank_type``.
        InvalidValueError: An expert would have no channels.
    """
    check_name(rank_type, get_args(RankType), "rank_type")
    steps = range(num_experts)
    ranks = {
        "constant": [rank for _ in steps],
        "lin": [rank + i for i in steps],
        "double": [rank + 2 * i for i in steps],
        "exp": [rank ** (i + 1) for i in steps],
        "fact": [math.factorial(max(rank, 0) + i) for i in steps],
        "spread": [dim // 2 ** (num_experts - 1 - i) for i in steps],
    }[rank_type]
    if min(ranks) < 1:
        raise InvalidValueError(
            f"rank_type {rank_type!r} gives experts of {ranks} channels (rank {rank}, {dim} channels); "
            "raise rank or dim, or use fewer experts"
        )
    return ranks


def expert_depths(depth_type: DepthType | int, stage_depth: int, num_experts: int) -> list[int]:
    """How often every expert applies itself, i = 0 to n - 1.

    constant: ``stage_depth``; lin: ``stage_depth + i``; double: ``stage_depth + 2i``; exp: ``2^i``; fact:
    ``(i+1)!``; a number: that number for all.

    Raises:
        UnknownNameError: Another ``depth_type``.
        InvalidValueError: A depth below 1.
    """
    steps = range(num_experts)
    if isinstance(depth_type, int):
        depths = [depth_type for _ in steps]
    else:
        check_name(depth_type, get_args(DepthType), "depth_type")
        depths = {
            "constant": [stage_depth for _ in steps],
            "lin": [stage_depth + i for i in steps],
            "double": [stage_depth + 2 * i for i in steps],
            "exp": [2**i for i in steps],
            "fact": [math.factorial(i + 1) for i in steps],
        }[depth_type]
    if min(depths) < 1:
        raise InvalidValueError(f"depth_type {depth_type!r} with stage_depth {stage_depth} gives depths {depths}")
    return depths


@tracing.traced_as(tracing.window_circular_convolution)
def window_circular_convolution(q: torch.Tensor, k: torch.Tensor, window: int) -> torch.Tensor:
    """Convolve ``q`` with ``k``, circularly, inside non-overlapping windows, through the Fourier domain.

    The picture is padded with zeros at the bottom and right to whole windows. Computed in float32: there is no
    bfloat16 Fourier transform, and float16 overflows.

    Args:
        q: (B, C, H, W).
        k: (B, C, H, W).
        window: Side of a window, in pixels.

    Returns:
        (B, C, H, W), in the precision of ``q``.
    """
    batch, channels, height, width = q.shape
    bottom, right = -height % window, -width % window
    rows, columns = (height + bottom) // window, (width + right) // window

    def windows(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(at_least_float32(x), (0, right, 0, bottom))
        return x.view(batch, channels, rows, window, columns, window).transpose(3, 4)

    spectrum = torch.fft.rfft2(windows(q)) * torch.fft.rfft2(windows(k))
    mixed = torch.fft.irfft2(spectrum, s=(window, window)).transpose(3, 4)
    mixed = mixed.reshape(batch, channels, height + bottom, width + right)
    return mixed[..., :height, :width].to(q.dtype)


class WindowFourierAttention(nn.Module):
    """Attention in the Fourier domain of windows: ``proj(LN(q * k) . v)``, where ``*`` is a circular convolution.

    Args:
        dim: Channels C.
        window: Side of a window, in pixels.
        kernel: Side of the depthwise kernel of keys and values.
    """

    def __init__(self, dim: int, window: int, kernel: int = 7) -> None:
        super().__init__()
        self.window = window
        self.q = nn.Conv2d(dim, dim, 1, bias=False)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.kv_dwconv = nn.Conv2d(2 * dim, 2 * dim, kernel, padding=kernel // 2, groups=2 * dim)
        self.norm = ChannelLayerNorm(dim)
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        q = self.q_dwconv(self.q(x))
        k, v = self.kv_dwconv(self.kv(x)).chunk(2, dim=1)
        out: torch.Tensor = self.proj_out(self.norm(window_circular_convolution(q, k, self.window)) * v)
        return out


class ComplexityExpert(nn.Module):
    """One expert: ``x + up(body(down(x)) * silu(down'(shared)))``.

    The published loop over ``depth`` starts from the same input each time, so that any depth computes what depth 1
    does. That is kept as ``depth_mode="published"``, because published checkpoints were trained with it.
    ``"stacked"`` does what the option promises: every pass starts from the result of the one before, with the same
    weights, so that the state dict does not change.

    Args:
        dim: Channels C of the features.
        rank: Channels inside the expert.
        window: Side of the Fourier windows, in pixels.
        depth: Passes; without effect if ``depth_mode`` is ``"published"``.
        depth_mode: ``"published"`` or ``"stacked"``.
    """

    def __init__(self, dim: int, rank: int, window: int, depth: int = 1, depth_mode: ExpertDepth = "published") -> None:
        super().__init__()
        self.passes = depth if depth_mode == "stacked" else 1
        self.proj = nn.ModuleList(
            [
                nn.Conv2d(dim, rank, 1, bias=False),  # down, of x
                nn.Conv2d(dim, rank, 1, bias=False),  # down, of shared
                nn.Conv2d(rank, dim, 1, bias=False),  # up
            ]
        )
        self.body = WindowFourierAttention(rank, window)

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """Map features and shared features, both (B, C, H, W), to (B, C, H, W)."""
        gate = F.silu(self.proj[1](shared))
        for _ in range(self.passes):
            x = x + self.proj[2](self.body(self.proj[0](x)) * gate)
        return x
