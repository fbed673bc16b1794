"""Low-rank adaptation of a convolution (LoRA, Hu et al., arXiv 2106.09685), which never touches the stored weight."""

import math

import torch
from torch import nn

from moir.base.errors import InvalidValueError


class LoRAConv2d(nn.Module):
    """A frozen convolution plus a low-rank change of its weight.

    The weight in effect is ``conv.weight + alpha / r * (B @ A)``, the row-major product reshaped to the convolution's
    shape. It is computed anew in every forward (a small fraction of the convolution's own work), and ``conv.weight``
    is never changed, so that training, evaluating and saving can follow each other in any order. The published
    implementation adds the change into ``conv.weight`` when it is set to evaluation; see :class:`LoRARestormer
    <moir.networks.lora_restormer.LoRARestormer>` for what that means for files.

    State-dict names are the published ones: ``conv.weight`` (and ``conv.bias``), ``lora_A`` (r * k, C_in * k),
    ``lora_B`` (C_out / groups * k, r * k), with k the side of the kernel.

    Args:
        conv: The convolution to adapt, with a square kernel. It is kept and frozen.
        r: Rank, >= 1.
        alpha: Scale of the change, times r.

    Raises:
        InvalidValueError: A rank below 1, or a kernel that is not square.
    """

    def __init__(self, conv: nn.Conv2d, r: int, alpha: float) -> None:
        super().__init__()
        if r < 1:
            raise InvalidValueError(f"a LoRA rank of {r} is not possible; use 1 or more")
        side = conv.kernel_size[0]
        if conv.kernel_size != (side, side):
            raise InvalidValueError(f"LoRA needs a square kernel, got {conv.kernel_size}")
        self.scaling = alpha / r
        self.conv = conv.requires_grad_(False)
        self.lora_A = nn.Parameter(conv.weight.new_empty(r * side, conv.in_channels * side))
        self.lora_B = nn.Parameter(conv.weight.new_zeros(conv.out_channels // conv.groups * side, r * side))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # B starts at zero: at first nothing changes

    def effective_weight(self) -> torch.Tensor:
        """The weight in effect, in the shape of ``conv.weight``."""
        change = (self.lora_B @ self.lora_A).view(self.conv.weight.shape)
        return self.conv.weight + self.scaling * change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C_in, H, W) with the weight in effect."""
        return self.conv._conv_forward(x, self.effective_weight(), self.conv.bias)
