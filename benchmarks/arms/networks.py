"""The designs that were compared for networks/compact: one frame, other blocks; see README.md.

All arms but ``unet`` share the frame of :class:`moir.networks.compact.Compact` (half resolution and below, three
scales, estimator, steering), so that what differs is what the arm is named after. Widths are chosen so that all take
about the same time on a CPU in bf16; ``report.py`` measures how well that was met.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from moir.experts.dispatch import dispatch
from moir.layers.layer_norm import ChannelLayerNorm
from moir.layers.transformer_block import TransformerBlock
from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork
from moir.networks.compact import Block, Compact, run_blocks


class GatedBlock(nn.Module):
    """A NAFNet block (Chen et al. 2022) whose first normalisation is steered by the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelLayerNorm(channels), ChannelLayerNorm(channels)
        self.film = nn.Linear(condition, 2 * channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        gate, value = self.conv2(self.conv1(torch.addcmul(shift, self.norm1(x), 1 + scale))).chunk(2, 1)
        x = x + self.beta * self.conv3(gate * value)
        gate, value = self.conv4(self.norm2(x)).chunk(2, 1)
        return x + self.gamma * self.conv5(gate * value)


class SteeredAttention(nn.Module):
    """A Restormer block behind a steering of its input."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.film = nn.Linear(condition, 2 * channels)
        self.body = TransformerBlock(channels, channels // 32, 2.66)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        return self.body(torch.addcmul(shift, x, 1 + scale))


class SmallExpert(nn.Module):
    """A dense block of another hidden width: one of the experts to choose from."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.conv1(x)))


class ExpertBlock(nn.Module):
    """A dense block, then one of four small experts, chosen once per picture."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        widths = [channels // 4, channels // 2, channels // 2, channels]
        self.shared = Block(channels, condition)
        self.experts = nn.ModuleList(SmallExpert(channels, w) for w in widths)
        self.gate = nn.Linear(condition, 4, bias=False)
        self.balance: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        x = self.shared(x, condition)
        logits = self.gate(condition.float())
        if self.training:
            logits = logits + torch.randn_like(logits) / 4
        gates, chosen = logits.softmax(1).topk(1, 1)
        mass = logits.softmax(1).sum(0)
        self.balance = mass.var() / mass.mean().square()
        return x + dispatch(self.experts, (x,), chosen, gates.to(x.dtype))


class Gated(Compact):
    """Arm ``nafnet``."""

    def block(self, scale: int, channels: int, condition: int) -> nn.Module:
        return GatedBlock(channels, condition)


class Attending(Compact):
    """Arm ``attention``: dense blocks, but Restormer blocks at 1/8."""

    def block(self, scale: int, channels: int, condition: int) -> nn.Module:
        return SteeredAttention(channels, condition) if scale == 8 else Block(channels, condition)


class Routed(Compact):
    """Arm ``experts``: at half resolution every block is followed by one of four small experts."""

    def block(self, scale: int, channels: int, condition: int) -> nn.Module:
        return ExpertBlock(channels, condition) if scale == 2 else Block(channels, condition)

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        out = super().forward(x, context)
        losses = [m.balance for m in self.modules() if isinstance(m, ExpertBlock) and m.balance is not None]
        self.balance_loss = torch.stack(losses).mean() if self.training else None
        return out


class Unsteered(Compact):
    """Arm ``unsteered``: the dense network without an estimate; its time is spent on the main path alone."""

    estimates = False

    def analyse(self, x: torch.Tensor) -> Context:
        size = self.estimator.mix[-1].out_features + 8
        return {"embedding": x.new_zeros(len(x), size - 8), "remove": x.new_zeros(len(x), 8)}


class Affine(Compact):
    """Arm ``affine``: haze and darkness are undone by a smooth gain and offset, predicted at 1/8, beside the residual.

    Both are what the physics asks for (haze: J = (I - A) / t + A, with smooth t), and keep the detail path, whose
    gradients they drown otherwise, to detail.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tone = nn.Conv2d(self.middle[0].conv1.in_channels, 6, 1)
        nn.init.zeros_(self.tone.weight)
        nn.init.zeros_(self.tone.bias)

    def restore(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        fine = run_blocks(self.encoder1, self.stem(F.pixel_unshuffle((x - 0.5) * 4, 2)), condition)
        middle = run_blocks(self.encoder2, self.down1(fine), condition)
        coarse = run_blocks(self.middle, self.down2(middle), condition)
        gain, offset = F.interpolate(self.tone(coarse), scale_factor=8, mode="bilinear").chunk(2, 1)
        middle = run_blocks(self.decoder2, middle + F.pixel_shuffle(self.up2(coarse), 2), condition)
        fine = run_blocks(self.decoder1, fine + F.pixel_shuffle(self.up1(middle), 2), condition)
        return x * (1 + gain) + offset + F.pixel_shuffle(self.head(fine), 2)


ARMS: dict[str, Callable[[], RestorationNetwork]] = {
    "dense": Compact,
    "affine": Affine,
    "unsteered": lambda: Unsteered(decoder_blocks=(2, 4)),
    "high": lambda: Compact(width=56, encoder_blocks=(2, 1), middle_blocks=1, decoder_blocks=(1, 4)),
    "nafnet": lambda: Gated(width=32, encoder_blocks=(2, 2), middle_blocks=4, decoder_blocks=(2, 2)),
    "attention": lambda: Attending(middle_blocks=3),
    "experts": lambda: Routed(encoder_blocks=(1, 2), decoder_blocks=(2, 2)),
    "unet": lambda: create_model("unet", width=24),
}
