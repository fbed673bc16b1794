"""The fast twin of the compact network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers.padding import pad_to_multiple
from moir.networks.base import Context
from moir.networks.compact import Block, Compact
from moir.runtime.fast.layout import Convolution
from moir.runtime.fast.twin import Twin


class SteeredBlock(nn.Module):
    """``x + conv(relu(scale * conv(x) + shift))``, with scale and shift put into the first convolution's weights.

    The weights are made once per picture: a few hundred thousand numbers, against a pass over the feature map.

    Args:
        block: The network's.
        dtype: Precision of the arithmetic.
    """

    film: torch.Tensor
    film_bias: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, Block)
        assert block.conv1.bias is not None
        self.conv2 = Convolution.of(block.conv2, dtype)
        self.register_buffer("film", block.film.weight.detach().float().clone())
        self.register_buffer("film_bias", block.film.bias.detach().float().clone())
        weight = block.conv1.weight.detach().float()
        self.register_buffer("weight", weight.clone(memory_format=torch.channels_last))
        self.register_buffer("bias", block.conv1.bias.detach().float().clone())

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) and (1, condition), float32, to (1, C, H, W)."""
        scale, shift = F.linear(condition, self.film, self.film_bias)[0].chunk(2)
        weight = (self.weight * (1 + scale)[:, None, None, None]).to(x.dtype)
        bias = torch.addcmul(shift, self.bias, 1 + scale).to(x.dtype)
        hidden = F.conv2d(x, weight, bias, padding=1).relu_()
        out: torch.Tensor = self.conv2(hidden)
        return out.add_(x)


class FastCompact(Twin):
    """The compact network, for inference. Decisions are the network's own.

    Args:
        network: The network; its estimator is shared, not copied.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, network: Compact, dtype: torch.dtype) -> None:
        super().__init__(network, dtype)
        self.network = network
        self.stem = Convolution.of(network.stem, dtype)
        self.encoder1 = _blocks(network.encoder1, dtype)
        self.down1 = _Halving(network.down1, dtype)
        self.encoder2 = _blocks(network.encoder2, dtype)
        self.down2 = _Halving(network.down2, dtype)
        self.middle = _blocks(network.middle, dtype)
        self.up2 = Convolution.of(network.up2, dtype)
        self.decoder2 = _blocks(network.decoder2, dtype)
        self.up1 = Convolution.of(network.up1, dtype)
        self.decoder1 = _blocks(network.decoder1, dtype)
        self.head = Convolution.of(network.head, dtype)
        self.eval()

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`moir.networks.compact.Compact.analyse`."""
        return self.network.analyse(x)

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """See :meth:`moir.networks.compact.Compact.instruct`."""
        return self.network.instruct(context, types)

    def restore_one(self, x: torch.Tensor, context: Context | None) -> torch.Tensor:
        """Restore one picture or tile."""
        if context is None:
            context = self.analyse(x)
        condition = torch.cat([context["embedding"], context["remove"]], 1).float()
        padded = pad_to_multiple(x, self.size_multiple)
        fine = _run(self.encoder1, self.stem(self._features(F.pixel_unshuffle((padded - 0.5) * 4, 2))), condition)
        middle = _run(self.encoder2, self.down1(fine), condition)
        coarse = _run(self.middle, self.down2(middle), condition)
        middle = _run(self.decoder2, middle.add_(F.pixel_shuffle(self.up2(coarse), 2)), condition)
        fine = _run(self.decoder1, fine.add_(F.pixel_shuffle(self.up1(middle), 2)), condition)
        out = F.pixel_shuffle(self.head(fine), 2).float() + padded
        return out[..., : x.shape[2], : x.shape[3]]


class _Halving(nn.Module):
    """A 2x2 convolution at stride 2, with its weights rounded and laid out once."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        assert conv.bias is not None
        self.register_buffer("weight", conv.weight.detach().to(dtype, memory_format=torch.channels_last, copy=True))
        self.register_buffer("bias", conv.bias.detach().to(dtype, copy=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, self.bias, stride=2)


def _blocks(blocks: nn.ModuleList, dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList([SteeredBlock(block, dtype) for block in blocks])


def _run(blocks: nn.ModuleList, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = block(x, condition)
    return x
