"""The fast twin of Restormer."""

import torch
from torch import nn

from moir.layers.padding import pad_to_multiple
from moir.layers.transformer_block import TransformerBlock
from moir.networks.base import Context, check_pictures
from moir.networks.lora_restormer import LoRARestormer
from moir.networks.restormer import Restormer
from moir.networks.statistics import Statistics, shared_attention
from moir.runtime.fast.blocks import Block, Blocks
from moir.runtime.fast.layout import Convolution
from moir.runtime.fast.resample import Down, Up, UpAndFuse
from moir.runtime.fast.twin import Twin, joined


class FastRestormer(Twin):
    """Restormer, for inference; LoRA Restormers with their changes added to the weights.

    Args:
        network: The network.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, network: Restormer, dtype: torch.dtype) -> None:
        super().__init__(network, dtype)
        if isinstance(network, LoRARestormer):
            network = merged(network)
        self.padding = 8
        self.patch_embed = Convolution.of(network.patch_embed.proj, dtype)
        self.encoder_level1 = _blocks(network.encoder_level1, dtype)
        self.down1_2 = Down(network.down1_2, dtype)
        self.encoder_level2 = _blocks(network.encoder_level2, dtype)
        self.down2_3 = Down(network.down2_3, dtype)
        self.encoder_level3 = _blocks(network.encoder_level3, dtype)
        self.down3_4 = Down(network.down3_4, dtype)
        self.latent = _blocks(network.latent, dtype)
        self.up4_3 = UpAndFuse(network.up4_3, network.reduce_chan_level3, dtype)
        self.decoder_level3 = _blocks(network.decoder_level3, dtype)
        self.up3_2 = UpAndFuse(network.up3_2, network.reduce_chan_level2, dtype)
        self.decoder_level2 = _blocks(network.decoder_level2, dtype)
        self.up2_1 = Up(network.up2_1, dtype)
        self.decoder_level1 = _blocks(network.decoder_level1, dtype)
        self.refinement = _blocks(network.refinement, dtype)
        self.output = Convolution.of(network.output, dtype)
        self.eval()

    def restore_one(self, x: torch.Tensor, context: Context | None) -> torch.Tensor:
        """Restore one picture or tile."""
        return self._restore(x, shared_attention(context, 1))

    def measure(self, x: torch.Tensor, context: Context) -> Context:
        """See :meth:`moir.networks.restormer.Restormer.measure`."""
        check_pictures(x)
        measured = []
        with torch.inference_mode():
            for picture in x.split(1):
                statistics = Statistics(None, 1)
                self._restore(picture, statistics)
                measured.append(statistics.used)
        return {**context, **joined(measured)}

    def _restore(self, x: torch.Tensor, shared: Statistics | None) -> torch.Tensor:
        padded = pad_to_multiple(x, self.padding)
        level1 = self.encoder_level1(self.patch_embed(self._features(padded)), shared)
        level2 = self.encoder_level2(self.down1_2(level1), shared)
        level3 = self.encoder_level3(self.down2_3(level2), shared)
        y = self.latent(self.down3_4(level3), shared)
        y = self.decoder_level3(self.up4_3(y, level3), shared)
        y = self.decoder_level2(self.up3_2(y, level2), shared)
        y = torch.cat([self.up2_1(y), level1], dim=1)  # not reduced, as published
        y = self.refinement(self.decoder_level1(y, shared), shared)
        out = self.output(y).float() + padded
        return out[..., : x.shape[2], : x.shape[3]]


def merged(network: LoRARestormer) -> Restormer:
    """The plain Restormer that computes what the fine-tuned one does."""
    options = {name: value for name, value in network.options.items() if name not in ("r", "lora_alpha")}
    with torch.device("meta"):
        plain = Restormer(**options)
    plain.load_state_dict(network.merged_state(), assign=True)
    return plain


def _blocks(blocks: nn.Sequential, dtype: torch.dtype) -> Blocks:
    own = [block for block in blocks if isinstance(block, TransformerBlock)]
    return Blocks([Block((b.norm1, b.norm2), b.attn, b.ffn, dtype) for b in own])
