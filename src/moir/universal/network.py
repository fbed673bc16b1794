"""UniRestorer in its published form: an extractor, a router, and a pool of whole networks.

Paper: "UniRestorer: Universal Image Restoration via Adaptively Estimating Image Degradation at Proper Granularity",
ICLR 2026, arXiv 2412.20157. State-dict names and shapes are the published ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork, build, check_pictures, recall
from moir.universal.daclip import DaClip
from moir.universal.daclip_input import preprocess_batch
from moir.universal.losses import through_gate
from moir.universal.router import Route, RouterNoise, RouterParts, level_balance, prune
from moir.universal.tree import Tree, official_tree

ExpertSpec = str | Sequence[Any] | nn.Module
"""A name of the registry; a name and options; or an expert that is there already."""

BIAS_FREE = ("restormer", {"LayerNorm_type": "BiasFree"})
PUBLISHED: Sequence[Sequence[ExpertSpec]] = (
    ("restormer",),
    (*[BIAS_FREE] * 4, "dehazeformer_l", "retinexformer", "nafnet_local"),
    (
        *[BIAS_FREE] * 3,
        *["lora_restormer"] * 4,
        *["restormer"] * 10,
        *["dehazeformer_l"] * 2,
        *["retinexformer"] * 2,
        *["nafnet_local"] * 2,
    ),
)
"""The published constructor's experts per level. The last, the 31st, is never chosen by the published tree."""


class UniRestorer(RestorationNetwork, RouterParts):
    """UniRestorer (arXiv 2412.20157): one expert per picture, chosen by its degradation, as fine as is certain.

    Extractor and experts are frozen; what trains is the router.

    Context (:meth:`analyse`):
        ``expert`` (B,): the number of the expert chosen; ``leaf`` (B,), ``level`` (B,): where it stands in the tree.
        ``leaf_logits`` (B, leaves), ``level_logits`` (B, levels), and the same as ``..._probability``.
        ``mu`` (B, features), ``log_variance`` (B, features): the estimate of the degradation.
        ``uncertainty`` (B,): the mean standard deviation of the estimate.
        ``analysed`` (B,): the expert whose own decisions on the picture the context holds, under ``experts.N.``; -1:
        none.

    Args:
        experts: Experts per level, the coarsest first; see :data:`ExpertSpec`. They are numbered through.
        tree: A :class:`~moir.universal.tree.Tree` or its options; None: the published one.
        extractor: Options of :class:`~moir.universal.daclip.DaClip`; by default the whole of it, as published.
        routing_noise: ``"training"``: noise on the router's logits in training. ``"never"``: none.

    Attributes:
        tree: The tree.
        routing_generator: Where the routing noise comes from; None: torch's own generator.
        balance_loss: After a training forward: the squared variation of the levels' shares (equation 8).

    Raises:
        InvalidValueError: Experts and tree do not fit together.
    """

    # The router looks at 224 px, but experts may measure statistics of the whole picture.
    bounded_analysis: ClassVar[bool] = False
    size_multiple: ClassVar[int] = 16
    overlap: ClassVar[int] = 64

    def __init__(
        self,
        experts: Sequence[Sequence[ExpertSpec]] = PUBLISHED,
        tree: Tree | Mapping[str, Any] | None = None,
        extractor: Mapping[str, Any] | None = None,
        routing_noise: RouterNoise = "training",
    ) -> None:
        super().__init__()
        self.tree = tree if isinstance(tree, Tree) else Tree.from_options(tree) if tree else official_tree()
        _check_pool(self.tree, [len(level) for level in experts])
        self.daclip_model = DaClip(**(extractor or {}))
        self.add_router(self.daclip_model.features, len(self.tree.leaves), len(self.tree.levels), routing_noise)
        for level, specs in enumerate(experts):
            self.add_module(f"l{level}_experts", nn.ModuleList([_make(spec) for spec in specs]))
        self.daclip_model.requires_grad_(False)
        for expert in self.experts:
            expert.requires_grad_(False)
        self.train()

    @property
    def experts(self) -> list[Any]:
        """The pool, in the order of the experts' numbers."""
        return [expert for level in range(self.levels) for expert in self.get_submodule(f"l{level}_experts").children()]

    def train(self, mode: bool = True) -> Self:
        """Set the router to training; extractor and experts stay as they are in use."""
        super().train(mode)
        self.daclip_model.eval()
        for expert in self.experts:
            expert.eval()
        return self

    @torch.no_grad()
    def represent(self, x: torch.Tensor) -> torch.Tensor:
        """The degradation representation: (B, 3, H, W) to (B, features), float32, not normalised."""
        shown = preprocess_batch(x, self.daclip_model.visual_control.side)
        with torch.autocast(x.device.type, enabled=False):
            representation: torch.Tensor = self.daclip_model(shown)
        return representation

    def decide(
        self, x: torch.Tensor, leaf_mask: torch.Tensor | None = None, level_mask: torch.Tensor | None = None
    ) -> Context:
        """The router's decision alone: the context without the experts' own.

        Args:
            x: (B, 3, H, W), float32, [0, 1].
            leaf_mask: (leaves,) or (B, leaves) bool, True for leaves that may not be chosen.
            level_mask: (levels,) or (B, levels) bool, True for levels that may not be chosen.
        """
        representation = self.represent(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.context_of(self.route(representation, leaf_mask, level_mask))

    def analyse(
        self, x: torch.Tensor, leaf_mask: torch.Tensor | None = None, level_mask: torch.Tensor | None = None
    ) -> Context:
        """Decide for whole pictures, and let the chosen experts decide what their tiles share.

        Args:
            x, leaf_mask, level_mask: See :meth:`decide`.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures, or a mask has another shape.
        """
        return self.prepare(x, self.decide(x, leaf_mask, level_mask))

    @torch.no_grad()
    def prepare(self, x: torch.Tensor, context: Context) -> Context:
        """The same context, with what the chosen experts decide about the whole pictures.

        For use after :meth:`instruct`, which may have chosen other experts.

        Args:
            x: (B, 3, H, W), the whole pictures.
            context: From :meth:`decide` or :meth:`instruct`.
        """
        own: dict[str, torch.Tensor] = {k: v for k, v in context.items() if not k.startswith("experts.")}
        chosen = recall(context, "expert", len(x))
        for number in sorted(set(chosen.tolist())):
            at = (chosen == number).nonzero().flatten()
            for name, value in self.experts[number].analyse(x[at]).items():
                whole = value.new_zeros(len(x), *value.shape[1:])
                own[f"experts.{number}.{name}"] = whole.index_copy(0, at, value)
        own["analysed"] = chosen.clone()
        return own

    def instruct(self, context: Context, types: Sequence[str], keep_all: bool | None = None) -> Context:
        """Prune the tree to these types, and choose again by the same logits (the paper's instruction mode).

        Args:
            context: From :meth:`analyse`.
            types: Degradation types to remove.
            keep_all: Whether experts that also serve other types may be chosen; None: only for several types.

        Raises:
            InvalidValueError: A type that no expert is for.
            UnknownNameError: Not a degradation type.
        """
        leaf_mask = self.tree.leaf_mask(types)
        keep = len(set(types)) > 1 if keep_all is None else keep_all
        level_mask = None if keep else self.tree.level_mask(leaf_mask)
        leaf_logits = prune(context["leaf_logits"], leaf_mask)
        level_logits = prune(context["level_logits"], level_mask)
        told = Route(
            context["mu"],
            context["log_variance"],
            leaf_logits,
            level_logits,
            leaf_logits.argmax(1),
            level_logits.argmax(1),
        )
        # The logits stay as they were, so that another instruction starts from the whole tree again.
        kept = {name: context[name] for name in ("leaf_logits", "level_logits", "analysed")}
        return {**context, **self.context_of(told), **kept}

    def account(self, context: Context) -> list[tuple[str, str]]:
        """Names of the chosen experts, with their levels in the tree."""
        chosen, levels = context["expert"].tolist(), context["level"].tolist()
        return [(self.tree.name_of(e), self.tree.levels[i]) for e, i in zip(chosen, levels, strict=True)]

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles, each by its own expert.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: What :meth:`analyse` returned for the B pictures (or for the one picture all B tiles are from).

        Returns:
            (B, 3, H, W), about [0, 1], not clamped. In training with a gradient to the router (equation 9).

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: A context of other pictures; or one picture alone in training.
        """
        check_pictures(x)
        if context is None:
            context = self.decide(x)
        chosen = recall(context, "expert", len(x))
        prepared = recall(context, "analysed", len(x)) == chosen
        # One synchronisation with the device for all experts.
        groups: dict[tuple[int, bool], list[int]] = {}
        for row, (number, ready) in enumerate(zip(chosen.tolist(), prepared.tolist(), strict=True)):
            groups.setdefault((number, ready), []).append(row)
        out: torch.Tensor | None = None
        for (number, ready), rows in sorted(groups.items()):
            at = torch.tensor(rows, device=x.device)
            own = self._own_context(context, number, len(x), at) if ready else None
            with torch.no_grad():
                result = self.experts[number](x if len(rows) == len(x) else x[at], own)
            out = result.new_zeros(x.shape) if out is None else out
            out = result if len(rows) == len(x) else out.index_copy(0, at, result)
        assert out is not None
        if not self.training:
            return out
        leaf, level = recall(context, "leaf_probability", len(x)), recall(context, "level_probability", len(x))
        self.balance_loss = level_balance(level)
        gate = leaf.gather(1, recall(context, "leaf", len(x))[:, None])
        gate = gate + level.gather(1, recall(context, "level", len(x))[:, None])
        return through_gate(out, gate[:, 0])

    def context_of(self, route: Route) -> dict[str, torch.Tensor]:
        """The context of a decision of :meth:`route`."""
        table = torch.tensor(self.tree.rows, device=route.leaf.device)
        return {
            "expert": table[route.leaf, route.level],
            "leaf": route.leaf,
            "level": route.level,
            "leaf_logits": route.leaf_logits,
            "level_logits": route.level_logits,
            "leaf_probability": route.leaf_probability,
            "level_probability": route.level_probability,
            "mu": route.mu,
            "log_variance": route.log_variance,
            "uncertainty": (0.5 * route.log_variance).exp().mean(dim=1),
            "analysed": torch.full_like(route.leaf, -1),
        }

    def _own_context(self, context: Context, number: int, batch: int, at: torch.Tensor) -> Context | None:
        """What the expert decided about the pictures ``at``, under its own names; None if it decides nothing."""
        prefix = f"experts.{number}."
        found = {k.removeprefix(prefix): recall(context, k, batch)[at] for k in context if k.startswith(prefix)}
        return found or None


def _make(spec: ExpertSpec) -> nn.Module:
    if isinstance(spec, nn.Module):
        return spec
    if isinstance(spec, str):
        return create_model(spec)
    parts: list[Any] = list(spec)
    name, options = parts
    return create_model(name, **options)


def _check_pool(tree: Tree, sizes: Sequence[int]) -> None:
    """Check that each level of the tree finds its experts in the same level of the pool.

    Raises:
        InvalidValueError: It does not.
    """
    if len(sizes) != len(tree.levels):
        raise InvalidValueError(f"experts of {len(sizes)} levels for a tree of {len(tree.levels)} ({tree.levels})")
    for leaf in tree.leaves:
        for level, expert in enumerate(leaf.experts):
            first = sum(sizes[:level])
            if not first <= expert < first + sizes[level]:
                raise InvalidValueError(
                    f"leaf {leaf.name} asks for expert {expert} at level {tree.levels[level]}, whose experts are "
                    f"{first} to {first + sizes[level] - 1}; give another tree, or more experts"
                )


def unirestorer(**options: Any) -> UniRestorer:
    """UniRestorer as published: 1,130,961,248 parameters (4.9 GB as a published state dict).

    To use a checkpoint, :func:`moir.universal.opening.open_unirestorer` needs far less memory.

    Args:
        **options: Options of :class:`UniRestorer` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(UniRestorer, {}, options)


def test_unirestorer(**options: Any) -> UniRestorer:
    """A tiny one for tests: 1 + 2 + 3 experts.

    Args:
        **options: Options of :class:`UniRestorer` that differ from the tiny ones.
    """
    leaves = [
        {"name": "noise", "types": ["noise"], "experts": [0, 1, 3]},
        {"name": "light rain", "types": ["rain"], "experts": [0, 2, 4], "degree": "light"},
        {"name": "heavy rain", "types": ["rain"], "experts": [0, 2, 5], "degree": "heavy"},
    ]
    small = ["test_restormer", {"dim": 4, "heads": (1, 1, 1, 1)}]
    free = ["test_restormer", {"dim": 4, "heads": (1, 1, 1, 1), "LayerNorm_type": "BiasFree"}]
    tiny = {
        "experts": [[small], [free, small], [free, small, small]],
        "tree": {"leaves": leaves},
        "extractor": {"features": 16, "width": 32, "layers": 2, "text_width": 16, "text_layers": 1, "vocabulary": 50},
    }
    return build(UniRestorer, tiny, options)


test_unirestorer.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
