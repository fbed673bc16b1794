"""UniRestorer in its shipped form: one shared network, a small set of own parameters per expert, a router.

An expert is the shared network with some of its parameters replaced. The coarsest expert is the shared network itself;
the groups of clean pictures have the identity.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import TYPES, check_name
from moir.networks.base import Context, RestorationNetwork, build, check_pictures, recall, select
from moir.networks.compact import Compact
from moir.universal.compact_extractor import CompactExtractor
from moir.universal.expert_form import own_names, with_form
from moir.universal.losses import through_gate
from moir.universal.router import Route, RouterNoise, RouterParts, level_balance, prune
from moir.universal.tree import Tree, grouped

FINE = ("stem.*", "encoder1.*", "up1.*", "down1.*", "decoder1.*", "head.*", "*.film.*")
"""What an expert has of its own: everything at half resolution, and how each block is steered."""


class CompactUniRestorer(RestorationNetwork, RouterParts):
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

    Args:
        tree: A :class:`~moir.universal.tree.Tree` or its options.
        base: Options of the shared network.
        extractor: Options of the extractor.
        own: Which parameters an expert has of its own, as patterns of their names.
        sure: Least calibrated probability of a type at which an expert told to remove it is let loose, per type; where
            the estimate is less sure, the shared network restores. None: no such condition.
        trained: Numbers of the experts that have parameters of their own; the others are the same as their parents, but
            for those of clean pictures, which are the identity. None: all but the coarsest and the identities.
        forms: Options of the shared network that single experts change, by the expert's number: more blocks, which are
            the expert's own. See :func:`~moir.universal.expert_form.with_form`.
        routing_noise: ``"training"``: noise on the router's logits in training. ``"never"``: none.

    Attributes:
        tree: The tree.
        extractor: The :class:`~moir.universal.compact_extractor.CompactExtractor`.
        base: The shared network, which is the expert of number 0.

    Raises:
        InvalidValueError: A pattern that matches no parameter.
    """

    estimates: ClassVar[bool] = True
    size_multiple: ClassVar[int] = Compact.size_multiple
    overlap: ClassVar[int] = Compact.overlap

    def __init__(
        self,
        tree: Tree | Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
        extractor: Mapping[str, Any] | None = None,
        own: Sequence[str] = FINE,
        trained: Sequence[int] | None = None,
        forms: Mapping[str | int, Mapping[str, Any]] | None = None,
        sure: Mapping[str, float] | None = None,
        routing_noise: RouterNoise = "training",
    ) -> None:
        super().__init__()
        self.tree = tree if isinstance(tree, Tree) else Tree.from_options(tree) if tree else _seven()
        self.base_options = dict(base or {})
        self.base = Compact(**self.base_options)
        self.extractor = CompactExtractor(**(extractor or {}))
        self.add_router(self.extractor.features, len(self.tree.leaves), len(self.tree.levels), routing_noise)
        numbers = range(1, self.tree.experts) if trained is None else trained
        self.trained = tuple(n for n in numbers if not self.tree.is_clean(n))
        self.sure = {check_name(type_, TYPES, "degradation type"): float(p) for type_, p in (sure or {}).items()}
        self.experts = nn.ModuleList([nn.Module() for _ in range(self.tree.experts)])
        self.forms = {int(n): with_form(self.base_options, form) for n, form in (forms or {}).items()}
        own_names(self.base, own)  # patterns are checked even where there is no expert
        for number in self.trained:
            network = Compact(**self.forms[number]) if number in self.forms else self.base
            _hold(self.experts[number], {n: network.get_parameter(n) for n in own_names(self.base, own, network)})
        for part in (self.base, self.extractor, self.experts):  # trained in stages of their own
            part.requires_grad_(False)
        self._assembled: dict[int, Compact] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Assembled experts share parameters with this very object; a copy assembles its own.
        return {**super().__getstate__(), "_assembled": {}}

    def expert(self, number: int) -> RestorationNetwork:
        """An expert as a network of its own: shares this one's parameters, copies nothing.

        Raises:
            InvalidValueError: An expert of clean pictures, which is no network.
        """
        if self.tree.is_clean(number):
            raise InvalidValueError(f"expert {number} ({self.tree.name_of(number)}) is the identity: it has no network")
        number = self.owner_of(number)
        if number == 0:
            return self.base
        if number not in self._assembled:
            with torch.device("meta"):
                network = Compact(**self.forms.get(number, self.base_options))
            own = dict(self.experts[number].named_parameters())
            for name, parameter in {**dict(self.base.named_parameters()), **own}.items():
                _put(network, name, parameter)
            if self.base.stem.weight.is_contiguous(memory_format=torch.channels_last):
                for parameter in own.values():  # laid out like the shared network, which the runtime prepares
                    if parameter.dim() == 4:
                        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
            self._assembled[number] = network.train(self.training)
        return self._assembled[number]

    def owner_of(self, number: int) -> int:
        """The expert whose parameters are used: this one, or the next above that has any."""
        while number not in self.trained and number != 0:
            number = self.tree.parent_of(number)
        return number

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`RestorationNetwork.analyse`; the tensors are listed in the class docstring."""
        check_pictures(x)
        representation = self.extractor(x)
        presence, degree = self.extractor.estimate(representation)
        base = self.base.analyse(x)
        context = {
            "presence": presence,
            "degree": degree,
            "embedding": base["embedding"],
            "found": base["remove"],
        }
        return self._decided(context, self.route(self.extractor.place(representation)))

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """Prune the tree to these types, and choose again by the same logits (the paper's instruction mode).

        Where no expert is for these types alone, the shared network is told to remove them.

        Args:
            context: From :meth:`analyse`.
            types: Degradation types to remove.

        Raises:
            UnknownNameError: Not a degradation type.
        """
        wanted = {check_name(type_, TYPES, "degradation type") for type_ in types}
        leaf_mask = torch.tensor([not leaf.types or not set(leaf.types) <= wanted for leaf in self.tree.leaves])
        told = _flags(wanted, context["embedding"]).expand(len(context["embedding"]), -1)
        if bool(leaf_mask.all()):
            zero = torch.zeros_like(context["expert"])
            return {**context, "expert": zero, "level": zero, "remove": told}
        leaf_logits = prune(context["leaf_logits"], leaf_mask)
        level_mask = self.tree.level_mask(leaf_mask)
        level_logits = prune(context["level_logits"], level_mask)
        leaf, level = leaf_logits.argmax(1), level_logits.argmax(1)
        return {**context, "leaf": leaf, "level": level, **self._chosen(leaf, level, told)}

    def account(self, context: Context) -> list[tuple[str, str]]:
        """Names of the chosen experts, with their levels in the tree."""
        chosen, levels = context["expert"].tolist(), context["level"].tolist()
        return [(self.tree.name_of(e), self.tree.levels[i]) for e, i in zip(chosen, levels, strict=True)]

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
        steering = {name: recall(context, name, len(x)) for name in ("embedding", "remove")}
        out = torch.empty_like(x)
        for number in sorted(set(chosen)):
            rows = [row for row, own in enumerate(chosen) if own == number]
            whole = len(rows) == len(x)
            part, own_steering = (x, steering) if whole else (x[rows], select(steering, rows))
            result = part.clone() if self.tree.is_clean(number) else expert(number)(part, own_steering)
            if whole:
                return result
            out[rows] = result.to(out.dtype)
        return out

    def accelerated(self, make: Callable[[RestorationNetwork], RestorationNetwork | None]) -> RestorationNetwork | None:
        """See :meth:`RestorationNetwork.accelerated`: every expert in its faster form, made when it is first needed."""
        return None if make(self.base) is None else _Accelerated(self, make)

    def restore_with(self, number: int, x: torch.Tensor, context: Context) -> torch.Tensor:
        """Restore with the expert of this number, whatever was decided; arguments as for :meth:`forward`."""
        forced = torch.full((len(context["embedding"]),), number, device=x.device)
        own = self._instruction(number)
        remove = context["found"] if own is None else own.to(context["found"]).expand(len(forced), -1)
        return self.forward(x, {**context, "expert": forced, "remove": remove})

    def agreed_level(self, presence: torch.Tensor, leaf: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The level that the router chose, or the coarsest where the estimate does not agree with its choice.

        An expert of one type does much harm to a picture that does not have it: brightened twice, or haze removed that
        is not there. So two must agree that it is there, the router and the calibrated estimate.

        Args:
            presence: (B, 7), calibrated logits.
            leaf, level: (B,), the router's choice.

        Returns:
            (B,), levels.
        """
        probability = torch.sigmoid(presence)
        wanted = self.tree.table().to(leaf.device)[leaf, level].tolist()
        unsure = [
            any(float(row[TYPES.index(type_)]) < self.sure.get(type_, 0.0) for type_ in self.tree.instruction(expert))
            for row, expert in zip(probability, wanted, strict=True)
        ]
        return level.masked_fill(torch.tensor(unsure, device=level.device), 0)

    def _decided(self, context: dict[str, torch.Tensor], route: Route) -> Context:
        level = self.agreed_level(context["presence"], route.leaf, route.level)
        return {
            **context,
            "leaf": route.leaf,
            "level": level,
            "leaf_logits": route.leaf_logits,
            "level_logits": route.level_logits,
            "mu": route.mu,
            "log_variance": route.log_variance,
            "uncertainty": (0.5 * route.log_variance).exp().mean(dim=1),
            **self._chosen(route.leaf, level, context["found"]),
        }

    def _chosen(self, leaf: torch.Tensor, level: torch.Tensor, otherwise: torch.Tensor) -> dict[str, torch.Tensor]:
        """The experts of these places in the tree, and what each is told to remove."""
        table = self.tree.table().to(leaf.device)
        expert = table[leaf, level]
        told = [self._instruction(number) for number in range(self.tree.experts)]
        rows = [otherwise[i] if told[e] is None else told[e] for i, e in enumerate(expert.tolist())]
        return {"expert": expert, "remove": torch.stack([row.to(otherwise) for row in rows])}

    def _instruction(self, number: int) -> torch.Tensor | None:
        """What an expert is told, (8,): its one type; None for the shared network and for experts of mixes."""
        told = self.tree.instruction(self.owner_of(number))
        return _flags(set(told), self.base.head.weight) if told else None


class _Accelerated(RestorationNetwork):
    """The same decisions, with faster forms of the experts."""

    def __init__(
        self, network: CompactUniRestorer, make: Callable[[RestorationNetwork], RestorationNetwork | None]
    ) -> None:
        super().__init__()
        self.network, self.options = network, network.options
        self._make = make
        self._made: dict[int, RestorationNetwork] = {}

    estimates: ClassVar[bool] = CompactUniRestorer.estimates
    size_multiple: ClassVar[int] = CompactUniRestorer.size_multiple
    overlap: ClassVar[int] = CompactUniRestorer.overlap

    def analyse(self, x: torch.Tensor) -> Context:
        return self.network.analyse(x)

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        return self.network.instruct(context, types)

    def account(self, context: Context) -> list[tuple[str, str]]:
        return self.network.account(context)

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        check_pictures(x)
        return self.network.restore_routed(x, self.analyse(x) if context is None else context, self._expert)

    def _expert(self, number: int) -> RestorationNetwork:
        owner = self.network.owner_of(number)
        if owner not in self._made:
            expert = self.network.expert(owner)
            self._made[owner] = self._make(expert) or expert
        return self._made[owner]


def _hold(module: nn.Module, parameters: Mapping[str, torch.Tensor]) -> None:
    """Give a module copies of these parameters, under their dotted names."""
    for name, value in parameters.items():
        _put(module, name, nn.Parameter(value.detach().clone()))


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Set a parameter by its dotted name; modules on the way are made where they are missing."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    module.register_parameter(last, parameter)


def _flags(types: set[str], like: torch.Tensor) -> torch.Tensor:
    """An instruction, (8,): which types to remove, and 1."""
    return torch.tensor([float(type_ in types) for type_ in TYPES] + [1.0], dtype=like.dtype, device=like.device)


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
