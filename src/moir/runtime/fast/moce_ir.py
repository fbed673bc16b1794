"""The fast twin of MoCE-IR."""

import torch
import torch.nn.functional as F
from torch import nn

from moir.experts.gate import Routing
from moir.layers.padding import pad_to_multiple
from moir.networks.base import Context, check_pictures, recall
from moir.networks.moce_ir import EXPERTS, FREQUENCY, GATES, MoCEIR
from moir.networks.moce_ir_blocks import (
    DecoderBlock,
    DecoderBlocks,
    EncoderBlock,
    EncoderBlocks,
    FrequencyEmbedding,
)
from moir.networks.moce_ir_expert import ComplexityExpert
from moir.networks.statistics import Statistics, shared_attention
from moir.runtime.fast.blocks import Block, Blocks
from moir.runtime.fast.layout import Convolution, empty_map
from moir.runtime.fast.moce_ir_decoder import Decoder, Gate, Router
from moir.runtime.fast.resample import Down, UpAndFuse
from moir.runtime.fast.twin import Twin, joined, of_picture


class Frequency(nn.Module):
    """:class:`~moir.networks.moce_ir_blocks.FrequencyEmbedding` for one picture; all but the first step in float32.

    Args:
        embedding: The network's.
        dtype: Precision of the convolution.
    """

    def __init__(self, embedding: FrequencyEmbedding, dtype: torch.dtype) -> None:
        super().__init__()
        self.high_pass = Convolution.of(embedding.high_conv.get_submodule("0.conv"), dtype)
        first, last = embedding.mlp[0], embedding.mlp[2]
        for name, linear in (("first", first), ("last", last)):
            assert isinstance(linear, nn.Linear)
            self.register_buffer(f"{name}_weight", linear.weight.detach().float().clone())
            self.register_buffer(f"{name}_bias", linear.bias.detach().float().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, C, H, W) to (1, C), float32."""
        pooled = F.gelu(self.high_pass(x)).mean(dim=(2, 3), dtype=torch.float32)
        hidden = F.gelu(F.linear(pooled, self.get_buffer("first_weight"), self.get_buffer("first_bias")))
        return F.linear(hidden, self.get_buffer("last_weight"), self.get_buffer("last_bias"))


class FastDecoderBlocks(nn.Module):
    """Decoder blocks in sequence, on two maps that take turns.

    Args:
        blocks: The network's.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, blocks: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(blocks, DecoderBlocks)
        self.blocks = nn.ModuleList([Decoder(b, dtype) for b in blocks.layers if isinstance(b, DecoderBlock)])

    def forward(self, x: torch.Tensor, route: Router, maps: Statistics | None) -> torch.Tensor:
        """Map ``x`` (1, C, H, W) to the same shape; ``x`` is overwritten. ``maps``: attention that tiles share."""
        spare = empty_map(x)
        for block in self.blocks:
            x, spare = block(x, spare, route, maps), x
        return x


class FastMoCEIR(Twin):
    """MoCE-IR, for inference.

    Args:
        network: The network; see :func:`supports`.
        dtype: Precision of the arithmetic; decisions are taken in float32 on features of this precision.

    Attributes:
        routes: After a forward of one picture: router name -> (1, topk) int64, the experts it took.
    """

    def __init__(self, network: MoCEIR, dtype: torch.dtype) -> None:
        super().__init__(network, dtype)
        self.routes: dict[str, torch.Tensor] = {}
        self.padding = network.padding
        self.patch_embed = Convolution.of(network.patch_embed.proj, dtype)
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        for stage in network.enc:
            assert isinstance(stage, nn.ModuleList)
            self.encoder.append(_encoder(stage[0], dtype))
            self.down.append(Down(stage[1], dtype))
        self.latent = _encoder(network.latent, dtype)
        self.frequency = Frequency(network.freq_embed, dtype)
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for stage in network.dec:
            assert isinstance(stage, nn.ModuleList)
            self.up.append(UpAndFuse(stage[0], stage[1], dtype))
            self.decoder.append(FastDecoderBlocks(stage[2], dtype))
        self.refinement = _encoder(network.refinement, dtype)
        self.output = Convolution.of(network.output, dtype)
        self.eval()

    def analyse(self, x: torch.Tensor) -> Context:
        """Decide as :meth:`moir.networks.moce_ir.MoCEIR.analyse` does, with the same names.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        decided: list[dict[str, torch.Tensor]] = []
        with torch.inference_mode():
            for picture in x.split(1):
                decided.append({})
                self._run(pad_to_multiple(picture, self.padding), None, decided[-1], None)
        return joined(decided)

    def restore_one(self, x: torch.Tensor, context: Context | None) -> torch.Tensor:
        """Restore one picture or tile."""
        return self._restore(x, context, shared_attention(context, 1))[0]

    def measure(self, x: torch.Tensor, context: Context) -> Context:
        """See :meth:`moir.networks.moce_ir.MoCEIR.measure`."""
        check_pictures(x)
        measured = []
        with torch.inference_mode():
            for number, picture in enumerate(x.split(1)):
                maps = Statistics(None, 1)
                self._restore(picture, of_picture(context, number, len(x)), maps)
                measured.append(maps.used)
        return {**context, **joined(measured)}

    def restore_whole(self, x: torch.Tensor) -> tuple[torch.Tensor, Context]:
        """See :meth:`moir.networks.moce_ir.MoCEIR.restore_whole`."""
        check_pictures(x)
        with torch.inference_mode():
            pictures, decided = zip(*(self._restore(picture, None, None) for picture in x.split(1)), strict=True)
        return torch.cat(pictures), joined(decided)

    def _restore(
        self, x: torch.Tensor, context: Context | None, maps: Statistics | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        padded = pad_to_multiple(x, self.padding)
        decided: dict[str, torch.Tensor] = {}
        features = self._run(padded, context, decided, maps)
        self.routes = {name.removesuffix(EXPERTS): value for name, value in decided.items() if name.endswith(EXPERTS)}
        out = self.output(self.refinement(features, maps)).float() + padded
        return out[..., : x.shape[2], : x.shape[3]], decided

    def _run(
        self,
        x: torch.Tensor,
        context: Context | None,
        decided: dict[str, torch.Tensor],
        maps: Statistics | None,
    ) -> torch.Tensor:
        """Everything before the refinement; writes down what was decided."""
        y = self.patch_embed(self._features(x))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            y = blocks(y, maps)
            skips.append(y)
            y = down(y)
        y = self.latent(y, maps)
        embedding = self.frequency(y) if context is None else recall(context, FREQUENCY, 1)
        decided[FREQUENCY] = embedding

        def route(gate: Gate, mean: torch.Tensor) -> Routing:
            if context is None:
                routing: Routing = gate(mean, embedding)
            else:
                experts, gates = (recall(context, gate.name + part, 1) for part in (EXPERTS, GATES))
                routing = Routing(experts, gates, None)
            decided[gate.name + EXPERTS], decided[gate.name + GATES] = routing.experts, routing.gates
            return routing

        for up, blocks in zip(self.up, self.decoder, strict=True):
            y = blocks(up(y, skips.pop()), route, maps)
        return y


def supports(network: MoCEIR) -> bool:
    """Whether the twin computes what the network does: no routing noise in evaluation, experts of one pass."""
    experts = [module for module in network.modules() if isinstance(module, ComplexityExpert)]
    return network.routing_noise != "always" and all(expert.passes == 1 for expert in experts)


def _encoder(blocks: nn.Module, dtype: torch.dtype) -> Blocks:
    assert isinstance(blocks, EncoderBlocks)
    own = [block for block in blocks.layers if isinstance(block, EncoderBlock)]
    return Blocks([Block((b.norms[0], b.norms[1]), b.mixer, b.ffn, dtype) for b in own])
