"""MoCE-IR: a U-shaped transformer whose decoder blocks choose among experts of growing complexity.

Paper: "Complexity Experts are Task-Discriminative Learners for Any Image Restoration", CVPR 2025, arXiv 2411.18466.
State-dict names and shapes are the published ones. What differs from the published code, on purpose: routing noise is
a training matter (``routing_noise``), a batch gives what its pictures give one by one, any picture size works, and
routing is decided once per picture (:meth:`MoCEIR.analyse`).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.experts.gate import ComplexityScale, ExpertGate, Routing, RoutingNoise
from moir.layers.padding import pad_to_multiple
from moir.layers.patch_embedding import PatchEmbedding
from moir.layers.resample import Downsample, Upsample
from moir.layers.transposed_attention import TransposedAttention, name_attention
from moir.networks.base import Context, RestorationNetwork, build, check_pictures, recall
from moir.networks.moce_ir_blocks import CrossAttention, DecoderBlocks, EncoderBlocks, ExpertOptions, FrequencyEmbedding
from moir.networks.moce_ir_expert import DepthType, ExpertDepth, RankType, expert_depths, expert_ranks
from moir.networks.statistics import Statistics, shared_attention

FREQUENCY = "frequency"
EXPERTS = ".experts"
GATES = ".gates"


class MoCEIR(RestorationNetwork):
    """MoCE-IR (arXiv 2411.18466), with every published option.

    Widths double per level: ``dim``, ``2 dim``, ... Per-level lists run from the shallowest to the deepest, except
    where stated.

    Args:
        dim: Width of the shallowest level.
        levels: Resolutions, the latent one included.
        heads: Attention heads per level.
        num_blocks: Encoder blocks per level; the last number is the latent blocks.
        num_dec_blocks: Decoder blocks per level, without the latent one.
        ffn_expansion_factor: Hidden width of the feed-forward halves over the blocks' width.
        num_refinement_blocks: Blocks at full resolution after the decoder.
        rank: Inner width that the rank types other than ``"spread"`` start from.
        num_experts: Experts per decoder block. Expert i works in windows of 4 * 2^i pixels.
        depth_type: ``"constant"``, ``"lin"``, ``"double"``, ``"exp"``, ``"fact"``, or a number: see
            :func:`~moir.networks.moce_ir_expert.expert_depths`.
        stage_depth: Depth that the depth types start from, per decoder level **in the order they run** (deepest
            first).
        rank_type: ``"constant"``, ``"lin"``, ``"double"``, ``"exp"``, ``"fact"`` or ``"spread"``: see
            :func:`~moir.networks.moce_ir_expert.expert_ranks`.
        topk: Experts per picture and decoder block.
        with_complexity: Whether the balance loss prefers cheap experts (the paper's complexity bias).
        complexity_scale: Whether complexity is relative to the largest (``"max"``) or smallest (``"min"``) expert.
        routing_noise: ``"training"``: noise on the routing logits in training only. ``"always"``: in evaluation too,
            as published; see :meth:`seed_routing`. ``"never"``: no noise anywhere (the load loss still assumes it).
        expert_depth: ``"published"``: an expert's depth has no effect, as in the published code (checkpoints were
            trained so). ``"stacked"``: an expert of depth d applies itself d times. The weights are the same.

    Attributes:
        routes: After a forward: router name -> (B, topk) int64, the experts that each picture took.
        routing_generator: Where the routing noise comes from; None: torch's own generator.
        balance_loss: After a training forward: the mean of the decoder blocks' balance losses.

    Raises:
        InvalidValueError: Options that do not fit together.
        UnknownNameError: An unknown type or mode; the message names near misses.
    """

    # The largest window, 32 pixels at a quarter of the resolution: tiles on this grid see the whole picture's windows.
    bounded_analysis: ClassVar[bool] = False
    measures: ClassVar[bool] = True
    size_multiple: ClassVar[int] = 128
    overlap: ClassVar[int] = 128

    def __init__(
        self,
        dim: int = 32,
        levels: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_dec_blocks: Sequence[int] = (2, 4, 4),
        ffn_expansion_factor: float = 2.0,
        num_refinement_blocks: int = 4,
        rank: int = 2,
        num_experts: int = 4,
        depth_type: DepthType | int = "constant",
        stage_depth: Sequence[int] = (1, 1, 1),
        rank_type: RankType = "spread",
        topk: int = 1,
        with_complexity: bool = True,
        complexity_scale: ComplexityScale = "max",
        routing_noise: RoutingNoise = "training",
        expert_depth: ExpertDepth = "published",
    ) -> None:
        super().__init__()
        check_name(routing_noise, get_args(RoutingNoise), "routing_noise")
        check_name(expert_depth, get_args(ExpertDepth), "expert_depth")
        _check_length("heads", heads, levels)
        _check_length("num_blocks", num_blocks, levels)
        _check_length("num_dec_blocks", num_dec_blocks, levels - 1)
        _check_length("stage_depth", stage_depth, levels - 1)
        self.routing_noise = routing_noise
        self.routing_generator: torch.Generator | None = None
        self.routes: dict[str, torch.Tensor] = {}
        self.padding = 2 ** (levels - 1)

        widths = [dim * 2**level for level in range(levels)]
        self.patch_embed = PatchEmbedding(3, dim)
        self.freq_embed = FrequencyEmbedding(widths[-1])
        self.enc = nn.ModuleList()
        for level in range(levels - 1):
            blocks = EncoderBlocks(num_blocks[level], widths[level], heads[level], ffn_expansion_factor)
            self.enc.append(nn.ModuleList([blocks, Downsample(widths[level])]))
        self.latent = EncoderBlocks(num_blocks[-1], widths[-1], heads[-1], ffn_expansion_factor)
        self.dec = nn.ModuleList()
        for stage, level in enumerate(reversed(range(levels - 1))):
            width = widths[level]
            options = ExpertOptions(
                ranks=expert_ranks(rank_type, rank, width, num_experts),
                depths=expert_depths(depth_type, stage_depth[stage], num_experts),
                depth_mode=expert_depth,
                topk=topk,
                with_complexity=with_complexity,
                complexity_scale=complexity_scale,
            )
            fuse = nn.Conv2d(2 * width, width, 1, bias=False)
            decoder = DecoderBlocks(
                num_dec_blocks[level], width, heads[level], ffn_expansion_factor, widths[-1], options
            )
            self.dec.append(nn.ModuleList([Upsample(2 * width), fuse, decoder]))
        self.refinement = EncoderBlocks(num_refinement_blocks, dim, heads[0], ffn_expansion_factor)
        self.output = nn.Conv2d(dim, 3, 3, padding=1, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, ExpertGate):
                module.name = name
        name_attention(self, (TransposedAttention, CrossAttention))

    def seed_routing(self, seed: int) -> None:
        """Take the routing noise from a generator of its own, seeded; the same on every device."""
        self.routing_generator = torch.Generator().manual_seed(seed)

    def analyse(self, x: torch.Tensor) -> Context:
        """Decide the frequency embedding and every decoder block's experts on whole pictures.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.

        Returns:
            ``"frequency"`` (B, 8 dim for four levels); per router, ``"<router name>.experts"`` (B, topk) int64 and
            ``"<router name>.gates"`` (B, topk).

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        context: dict[str, torch.Tensor] = {}
        self._features(pad_to_multiple(x, self.padding), None, context, [], None)
        return context

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles, with the decisions of ``context`` or their own.

        In training, ``balance_loss`` is set unless a context is given (then nothing is decided here).

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: What :meth:`analyse` returned for the B pictures (or for the one picture all B tiles are from).

        Returns:
            (B, 3, H, W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: The context does not fit.
        """
        return self._restore(x, context, shared_attention(context, x.shape[0]))[0]

    def measure(self, x: torch.Tensor, context: Context) -> Context:
        """See :meth:`RestorationNetwork.measure`: ``"<module>.attention"`` (B, heads, C / heads, C / heads) each."""
        maps = Statistics(None, len(x))
        self._restore(x, context, maps)
        return {**context, **maps.used}

    def restore_whole(self, x: torch.Tensor) -> tuple[torch.Tensor, Context]:
        """See :meth:`RestorationNetwork.restore_whole`; one pass."""
        return self._restore(x, None, None)

    def _restore(
        self, x: torch.Tensor, context: Context | None, maps: Statistics | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The restored pictures, and what was decided or recalled."""
        check_pictures(x)
        padded = pad_to_multiple(x, self.padding)
        decided: dict[str, torch.Tensor] = {}
        losses: list[torch.Tensor] = []
        features = self._features(padded, context, decided, losses, maps)
        self.balance_loss = torch.stack(losses).mean() if losses else None
        self.routes = {name.removesuffix(EXPERTS): value for name, value in decided.items() if name.endswith(EXPERTS)}
        out: torch.Tensor = self.output(self.refinement(features, maps)) + padded
        return out[..., : x.shape[2], : x.shape[3]], decided

    def _features(
        self,
        x: torch.Tensor,
        context: Context | None,
        decided: dict[str, torch.Tensor],
        losses: list[torch.Tensor],
        maps: Statistics | None,
    ) -> torch.Tensor:
        """Everything before the refinement; writes down what was decided, and what it costs in balance."""
        batch = x.shape[0]
        x = self.patch_embed(x)
        skips = []
        for stage in self.enc:
            assert isinstance(stage, nn.ModuleList)
            blocks, down = stage
            x = blocks(x, maps)
            skips.append(x)
            x = down(x)
        x = self.latent(x, maps)
        embedding = self.freq_embed(x) if context is None else recall(context, FREQUENCY, batch)
        decided[FREQUENCY] = embedding

        def route(gate: ExpertGate, features: torch.Tensor) -> Routing:
            name = gate.name
            if context is None:
                routing = self._decide(gate, features, embedding)
            else:
                experts, gates = (recall(context, name + part, batch) for part in (EXPERTS, GATES))
                routing = Routing(experts, gates, None)
            decided[name + EXPERTS], decided[name + GATES] = routing.experts, routing.gates
            if routing.loss is not None:
                losses.append(routing.loss)
            return routing

        for stage in self.dec:
            assert isinstance(stage, nn.ModuleList)
            up, fuse, blocks = stage
            x = fuse(torch.cat([up(x), skips.pop()], dim=1))
            x = blocks(x, route, maps)
        return x

    def _decide(self, gate: ExpertGate, features: torch.Tensor, embedding: torch.Tensor) -> Routing:
        """Ask a gate, with or without noise."""
        noisy = self.routing_noise == "always" or (self.routing_noise == "training" and self.training)
        if noisy and not self.training and self.routing_generator is None:
            self.seed_routing(0)  # evaluation never depends on torch's own generator
        routing: Routing = gate(features, embedding, noisy, self.routing_generator, with_loss=self.training)
        return routing

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "routing_generator": None}  # generators cannot be copied


def _check_length(name: str, values: Sequence[int], length: int) -> None:
    if len(values) != length:
        raise InvalidValueError(f"{name} is {list(values)}, but {length} numbers are needed (see levels)")


PUBLISHED: dict[str, Any] = {
    "levels": 4,
    "heads": (1, 2, 4, 8),
    "num_blocks": (4, 6, 6, 8),
    "num_dec_blocks": (2, 4, 4),
    "ffn_expansion_factor": 2,
    "num_refinement_blocks": 4,
    "rank": 2,
    "num_experts": 4,
    "depth_type": "constant",
    "stage_depth": (1, 1, 1),
    "rank_type": "spread",
    "topk": 1,
    "with_complexity": True,
    "complexity_scale": "max",
}
"""What both published sizes share. The paper's complexity bias is on; the published command lines forget it."""


def moce_ir(**options: Any) -> MoCEIR:
    """MoCE-IR: 25,353,796 parameters.

    Args:
        **options: Options of :class:`MoCEIR` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(MoCEIR, {**PUBLISHED, "dim": 48}, options)


def moce_ir_s(**options: Any) -> MoCEIR:
    """MoCE-IR-S: 11,477,752 parameters.

    Args:
        **options: Options of :class:`MoCEIR` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(MoCEIR, {**PUBLISHED, "dim": 32}, options)


def test_moce_ir(**options: Any) -> MoCEIR:
    """A tiny MoCE-IR for tests: the same parts, milliseconds to run.

    Args:
        **options: Options of :class:`MoCEIR` that differ from the tiny ones.
    """
    tiny = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_dec_blocks": (1, 1, 1), "num_refinement_blocks": 1}
    return build(MoCEIR, {**PUBLISHED, **tiny}, options)


test_moce_ir.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
