"""UniRestorer in its shipped form: one shared network, a small set of own parameters per expert, a router.

An expert is the shared network with some of its parameters replaced. The coarsest expert is the shared network itself;
the groups of clean pictures have the identity. Adapters and whole networks of others can join as experts
(:mod:`moir.universal.tree_joining`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from moir.base.errors import InvalidValueError
from moir.base.names import TYPES
from moir.networks.base import PLACE, Context, RestorationNetwork, build, check_pictures, recall, select
from moir.networks.bilateral_grid import BilateralGrid
from moir.networks.compact import Compact
from moir.networks.instructed import instruction
from moir.universal.accelerated_tree import AcceleratedTree
from moir.universal.agreement import Agreement
from moir.universal.compact_experts import FINE, ExpertParts
from moir.universal.compact_extractor import CompactExtractor
from moir.universal.composed_expert import (
    CERTAINTY,
    DECISIONS,
    SCENE,
    removed_by,
    scene_context,
    weighed,
)
from moir.universal.expert_kinds import Form
from moir.universal.losses import through_gate
from moir.universal.router import Route, RouterNoise, RouterParts, level_balance
from moir.universal.tree import Tree, grouped

STEPS = "steps"
"""What the expert beyond the tree's own is called, which takes the steps."""


class CompactUniRestorer(RestorationNetwork, RouterParts, ExpertParts):
    """UniRestorer (arXiv 2412.20157) whose experts share one :class:`~moir.networks.compact.Compact`.

    Extractor and experts are frozen; what trains is the router.

    Context (:meth:`analyse`):
        ``presence`` (B, 7), ``degree`` (B, 7, 3): the extractor's calibrated estimate, as logits.
        ``expert`` (B,): the number of the expert chosen; ``leaf`` (B,), ``level`` (B,): where it stands in the tree.
        ``leaf_logits`` (B, leaves), ``level_logits`` (B, levels): of the router.
        ``mu`` (B, F), ``log_variance`` (B, F): the router's estimate of the representation's place.
        ``uncertainty`` (B,): the mean standard deviation of that estimate.
        ``embedding`` (B, E): what steers the shared network, by its own estimator.
        ``found`` (B, 8), ``remove`` (B, 8): what the shared network would remove by itself, and what it shall remove.
        ``certainty`` (B, 7): the probability that each type is there; 0 or 1 where the user has said what to remove.
        ``scene_features``, ``scene_embedding``: with a bilateral grid, what it saw of the scene.

    Args:
        tree: A :class:`~moir.universal.tree.Tree` or its options.
        base: Options of the shared network.
        extractor: Options of the extractor.
        own: Which parameters an expert has of its own, as patterns of their names.
        sure, sure_mixed, believed, alone: How sure the estimate must be of a type before an expert for it, or for a mix
            with it, is let loose, before the picture is not taken for sound, and before an expert of another type may
            not restore; see :class:`~moir.universal.agreement.Agreement`. None: no such condition.
        finest: Types whose leaves, alone or with others, the finest expert restores, where the coarsest does not.
        steps: What restores where no leaf is for just what the user said, and in auto mode in place of the coarsest
            expert where certainly two or more of them have something to do; as the ``parts`` of a form
            (:mod:`moir.universal.expert_kinds`). One more expert, beyond those of the tree, made of these. None: the
            shared network does.
        certain: How sure the estimate must be of a type that counts for this; see ``Agreement``, too.
        trained: Numbers of the experts that have parameters of their own; the others are the same as their parents, but
            for those of clean pictures, which are the identity. None: all but the coarsest and the identities.
        scene: Options of a bilateral grid (:class:`~moir.networks.bilateral_grid.BilateralGrid`), which experts made
            of others may use. None: there is none.
        forms: What single experts are, by number, where they are not the shared network with parameters ``own``: more
            blocks, an adapter, or a whole network. See :mod:`moir.universal.expert_kinds`.
        waiting: Leaves, by number, that nothing chooses: they joined after the router was trained.
        routing_noise: ``"training"``: noise on the router's logits in training. ``"never"``: none.

    Attributes:
        tree: The tree.
        extractor: The :class:`~moir.universal.compact_extractor.CompactExtractor`.
        base: The shared network, which is the expert of number 0.
        kinds: What each trained expert is, by number.
        steps: What the expert beyond the tree's own is, whose number is ``tree.experts``; None: there is none.
        weighing: Only with a grid: (3, 7), what the extractor's and the grid's logits of presence count, and an offset.

    Raises:
        InvalidValueError: A pattern that matches no parameter; a form that is none, of an expert that is not trained,
            of a network that cannot be an expert, or of parts that are not there; or a leaf that waits and is not
            there.
    """

    weighing: torch.Tensor
    estimates: ClassVar[bool] = True
    size_multiple: ClassVar[int] = Compact.size_multiple
    overlap: ClassVar[int] = Compact.overlap

    def __init__(
        self,
        tree: Tree | Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
        extractor: Mapping[str, Any] | None = None,
        scene: Mapping[str, Any] | None = None,
        own: Sequence[str] = FINE,
        trained: Sequence[int] | None = None,
        forms: Mapping[str | int, Form] | None = None,
        sure: Mapping[str, float] | None = None,
        sure_mixed: Mapping[str, float] | None = None,
        believed: float | None = None,
        alone: float | None = None,
        finest: Sequence[str] = (),
        steps: Sequence[Any] | None = None,
        certain: Mapping[str, float] | None = None,
        waiting: Sequence[int] = (),
        routing_noise: RouterNoise = "training",
    ) -> None:
        super().__init__()
        self.tree = tree if isinstance(tree, Tree) else Tree.from_options(tree) if tree else _seven()
        self.base_options = dict(base or {})
        self.base = Compact(**self.base_options)
        self.extractor = CompactExtractor(**(extractor or {}))
        self.scene = None if scene is None else BilateralGrid(**scene)
        self.uses_place = scene is not None  # type: ignore[misc]
        if scene is not None:
            self.register_buffer("weighing", torch.tensor([[1.0], [0.0], [0.0]]).repeat(1, len(TYPES)))
        self.add_router(self.extractor.features, len(self.tree.leaves), len(self.tree.levels), routing_noise)
        self.add_experts(own, trained, forms, steps)
        told = [self.told(number) for number in range(self.tree.experts)]
        conditions = (sure, sure_mixed, believed, alone, finest, certain)
        self.agreement = Agreement(
            self.tree, told, *conditions, None if self.steps is None else removed_by(self.steps.steps)
        )
        self.waiting = tuple(sorted(set(waiting)))
        if self.waiting and not 0 <= self.waiting[0] <= self.waiting[-1] < len(self.tree.leaves):
            raise InvalidValueError(
                f"waiting={list(waiting)}: the tree has the leaves 0 to {len(self.tree.leaves) - 1}"
            )
        for part in (self.base, self.extractor, self.experts, self.scene):  # trained in stages of their own
            if part is not None:
                part.requires_grad_(False)

    def route(
        self,
        representation: torch.Tensor,
        leaf_mask: torch.Tensor | None = None,
        level_mask: torch.Tensor | None = None,
    ) -> Route:
        """See :meth:`RouterParts.route`; leaves that wait are never chosen."""
        if self.waiting:
            waits = self._waits()
            leaf_mask = waits if leaf_mask is None else leaf_mask | waits.to(leaf_mask.device)
        return super().route(representation, leaf_mask, level_mask)

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`RestorationNetwork.analyse`; the tensors are listed in the class docstring."""
        check_pictures(x)
        representation = self.extractor(x)
        presence, degree = self.extractor.estimate(representation)
        base = self.base.analyse(x)
        context = {"degree": degree, "embedding": base["embedding"], "found": base["remove"]}
        if self.scene is not None:
            scene = self.scene.analyse(x)
            presence = weighed(self.weighing, presence, scene["presence"])
            context |= scene_context(scene)
        context |= {"presence": presence, CERTAINTY: torch.sigmoid(presence)}
        return self._decided(context, self.route(self.extractor.place(representation)))

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """Prune the tree to these types, and choose again by the same logits (the paper's instruction mode).

        Where no leaf is for just these types, the steps remove them; where there are no steps, the router chooses among
        the leaves for some of them, and where there is none, the shared network is told.

        Args:
            context: From :meth:`analyse`.
            types: Degradation types to remove.

        Raises:
            UnknownNameError: Not a degradation type.
        """
        told = instruction(types).to(context["embedding"]).expand(len(context["embedding"]), -1)
        context = {**context, CERTAINTY: told[:, :-1].clone()}
        logits = context["leaf_logits"], context["level_logits"]
        place = self.agreement.told_place(*logits, types, self._waits())
        if place is None:
            zero = torch.zeros_like(context["expert"])
            expert = zero if self.steps is None else zero + self.tree.experts
            return {**context, "expert": expert, "level": zero, "remove": told}
        return {**context, "leaf": place[0], "level": place[1], **self.agreement.chosen(*place, told)}

    def following(self, context: Context, decided: Context) -> Context:
        """See :meth:`RestorationNetwork.following`."""
        return {**context, **{name: decided[name] for name in ("expert", "leaf", "level", "remove", CERTAINTY)}}

    def account(self, context: Context) -> list[tuple[str, str]]:
        """Names of the chosen experts, with their levels in the tree; for the steps, what they remove."""
        found = []
        for row, (number, level) in enumerate(zip(context["expert"].tolist(), context["level"].tolist(), strict=True)):
            if self.steps is not None and self.takes_steps(number):
                removed = removed_by(self.steps.steps, context[CERTAINTY][row].tolist())
                name = f"{STEPS}: {', '.join(name for step in removed for name in step)}"
            else:
                name = self.tree.name_of(number)
            found.append((name, self.tree.levels[level]))
        return found

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`RestorationNetwork.forward`."""
        check_pictures(x)
        if context is None:
            context = self.analyse(x)
        out = self.restore_routed(x, context, self.expert)
        if not self.training:
            return out
        leaf, level = (recall(context, f"{name}_logits", len(x)).softmax(1) for name in ("leaf", "level"))
        self.balance_loss = level_balance(level)
        gate = leaf.gather(1, recall(context, "leaf", len(x))[:, None])
        gate = gate + level.gather(1, recall(context, "level", len(x))[:, None])
        return through_gate(out, gate[:, 0])

    def restore_routed(
        self, x: torch.Tensor, context: Context, expert: Callable[[int], RestorationNetwork]
    ) -> torch.Tensor:
        """Restore each picture or tile by the expert that the context names.

        Args:
            x: (B, 3, H, W).
            context: From :meth:`analyse` or :meth:`instruct`.
            expert: Gives the network of an expert's number; identities are not asked for.
        """
        chosen = recall(context, "expert", len(x)).tolist()
        steering = self.steering(context, len(x))
        out = torch.empty_like(x)
        for number in sorted(set(chosen)):
            rows = [row for row, own in enumerate(chosen) if own == number]
            whole = len(rows) == len(x)
            part, own_steering = (x, steering) if whole else (x[rows], select(steering, rows))
            is_clean = not self.takes_steps(number) and self.tree.is_clean(number)
            result = part.clone() if is_clean else expert(number)(part, own_steering)
            if whole:
                return result
            out[rows] = result.to(out.dtype)
        return out

    def steering(self, context: Context, batch: int) -> Context:
        """What experts read of the context, for a batch of this size."""
        names = ["embedding", "remove", CERTAINTY]
        if self.scene is not None:
            names += [SCENE + name for name in DECISIONS]
        names += [PLACE] if PLACE in context else []
        return {name: recall(context, name, batch) for name in names}

    def accelerated(self, make: Callable[[RestorationNetwork], RestorationNetwork | None]) -> RestorationNetwork | None:
        """See :meth:`RestorationNetwork.accelerated`: every expert in its faster form, made when it is first needed."""
        return None if make(self.base) is None else AcceleratedTree(self, make)

    def restore_with(self, number: int, x: torch.Tensor, context: Context) -> torch.Tensor:
        """Restore with the expert of this number, whatever was decided; arguments as for :meth:`forward`."""
        forced = torch.full((len(context["embedding"]),), number, device=x.device)
        told = self.told(number)
        remove = instruction(told).to(context["found"]).expand(len(forced), -1) if told else context["found"]
        return self.forward(x, {**context, "expert": forced, "remove": remove})

    def _waits(self) -> torch.Tensor:
        """(leaves,) bool, True for leaves that nothing chooses yet."""
        return torch.tensor([leaf in self.waiting for leaf in range(len(self.tree.leaves))])

    def _decided(self, context: dict[str, torch.Tensor], route: Route) -> Context:
        route = self.agreement.agreed(context["presence"], route)
        return {
            **context,
            "leaf": route.leaf,
            "level": route.level,
            "leaf_logits": route.leaf_logits,
            "level_logits": route.level_logits,
            "mu": route.mu,
            "log_variance": route.log_variance,
            "uncertainty": (0.5 * route.log_variance).exp().mean(dim=1),
            **self.agreement.chosen(route.leaf, route.level, context["found"], context["presence"]),
        }


def _seven() -> Tree:
    """A tree of the seven single types in three degrees."""
    return grouped([(3, (type_,)) for type_ in TYPES])


def unirestorer_compact(**options: Any) -> CompactUniRestorer:
    """The shipped form; the tree comes with the weights.

    Args:
        **options: Options of :class:`CompactUniRestorer`.
    """
    return build(CompactUniRestorer, {}, options)


def test_unirestorer_compact(**options: Any) -> CompactUniRestorer:
    """A tiny one, for tests: 1 + 2 + 3 experts and clean pictures."""
    leaves = [
        {"name": "clean", "types": [], "experts": [0, 1, 4]},
        {"name": "light noise", "types": ["noise"], "experts": [0, 2, 5], "degree": "light"},
        {"name": "heavy noise", "types": ["noise"], "experts": [0, 2, 6], "degree": "heavy"},
        {"name": "rain-haze", "types": ["rain", "haze"], "experts": [0, 3, 7]},
    ]
    base = {"width": 8, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1), "embedding": 8}
    tiny = {
        "tree": {"leaves": leaves},
        "base": {**base, "estimator_width": 4},
        "extractor": {"features": 16, "width": 4},
    }
    return build(CompactUniRestorer, tiny, options)


test_unirestorer_compact.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
