"""An expert made of others: steps one after the other, in each of which what several make is averaged.

Damage of several kinds has experts of each kind; told what to remove and what to leave, they can follow each other.
And where a picture does not show what was there (how bright a dark scene was), two guesses that err differently are
nearer to it in the mean than either: an expert's, which sees detail, and the bilateral grid's, which sees the scene.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import TYPES, check_name
from moir.layers.flatten import flatten
from moir.networks.base import PLACE, Context, RestorationNetwork, recall
from moir.networks.bilateral_grid import BilateralGrid
from moir.networks.instructed import instruction

SCENE = "scene_"
"""What the names of the grid's own decisions begin with in the context of a tree."""

CERTAINTY = "certainty"
"""What the context calls the probabilities."""

DECISIONS = ("features", "embedding")
"""Which they are."""


@dataclass(frozen=True)
class Part:
    """What takes part in a step: an expert of the tree, its bilateral grid, or steps of such parts.

    An expert may also have parameters of its own beside others that it is made of; then it is a part of itself.

    Attributes:
        told: What it is told to remove; empty: what was found.
        expert: Number of the expert; None: the grid, the expert itself, or steps.
        is_own: Whether it is the expert itself, by its own parameters.
        steps: One after the other; empty: it is an expert or the grid.
        certainty: Of steps: how far they change what they are given, by how probable the damage is; see
            :class:`ComposedExpert`.
        sure: Of ``told``, only what is there with at least this probability is removed; where nothing is, the part
            leaves the picture as it is. 0: all of it.
        flatten: What varies by less than so many levels of 255 is taken out first, see
            :func:`moir.layers.flatten.flatten`; 0: nothing is. Not of steps.
        weight: What it counts in the mean of its step.
    """

    told: tuple[str, ...] = ()
    expert: int | None = None
    is_own: bool = False
    steps: "Steps" = ()
    certainty: "Ramps" = field(default_factory=dict)
    sure: float = 0.0
    flatten: float = 0.0
    weight: float = 1.0

    @classmethod
    def read(cls, form: Any) -> "Part":
        """Read a part: an expert, the grid, the expert itself, or steps.

        ``{"expert": 1, "told": ["noise"]}``, ``{"grid": ["haze"]}``, ``{"own": ["haze"]}``, or ``parts`` (and
        ``certainty``), each perhaps with a ``weight``. The grid must be told. What is told may be ``sure``, and what is
        no ``parts`` may ``flatten`` first.

        Raises:
            InvalidValueError: It is none of them, its weight is not above 0, ``flatten`` is below 0, or ``sure`` is no
                probability of what it is told.
            UnknownNameError: Not a degradation type.
        """
        keys = set(form) - {"weight", "sure", "flatten"} if isinstance(form, Mapping) else set()
        weight, levels = (form.get("weight", 1.0), form.get("flatten", 0.0)) if keys else (1.0, 0.0)
        if not _is_number(weight) or weight == 0:
            raise InvalidValueError(f"weight {weight!r} of the part {form!r}: give a number above 0")
        if not _is_number(levels) or (levels and "parts" in keys):
            raise InvalidValueError(f"flatten {levels!r} of the part {form!r}: give levels of 255, not of steps")
        if {"parts"} <= keys <= {"parts", "certainty"}:
            if form.get("sure"):
                raise InvalidValueError(f"sure {form['sure']!r} of the part {form!r}: its parts may be, not the steps")
            steps, ramps = read_steps(form["parts"]), read_ramps(form.get("certainty"))
            return cls(steps=steps, certainty=ramps, weight=float(weight))
        is_own = keys == {"own"}
        if is_own or (keys == {"grid"} and form["grid"]):
            told, expert = form[min(keys)] or (), None
        elif {"expert"} <= keys <= {"expert", "told"} and isinstance(form["expert"], int):
            told, expert = form.get("told") or (), form["expert"]
        else:
            raise InvalidValueError(f'{form!r} is no part of an expert, like {{"expert": 1, "told": ["noise"]}}')
        names = tuple(check_name(str(name), TYPES, "degradation type") for name in told)
        sure = form.get("sure", 0.0)
        if not isinstance(sure, int | float) or isinstance(sure, bool) or not 0 <= sure <= 1 or (sure and not names):
            raise InvalidValueError(f"sure {sure!r} of the part {form!r}: give a probability of what it is told")
        return cls(names, expert, is_own, sure=float(sure), flatten=float(levels), weight=float(weight))

    @property
    def words(self) -> str:
        """For lists."""
        name = "own" if self.is_own else "grid" if self.expert is None else str(self.expert)
        if self.steps:
            name = f"({words_of(self.steps)})"
        return name if self.weight == 1 else f"{self.weight:g} x {name}"

    def all(self) -> "list[Part]":
        """The experts and grids that it is made of, and the expert itself."""
        return [part for step in self.steps for inner in step for part in inner.all()] if self.steps else [self]


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that is not below 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


Steps = tuple[tuple[Part, ...], ...]
"""Steps, each of parts whose results are averaged, by their weights."""


def words_of(steps: Steps) -> str:
    """Steps for lists.

    Examples:
        >>> words_of(read_steps([[{"expert": 1}], [{"expert": 3}, {"grid": ["haze"], "weight": 2}]]))
        '1, then 3 + 2 x grid'
    """
    return ", then ".join(" + ".join(part.words for part in step) for step in steps)


def removed_by(steps: Steps, certainty: Sequence[float] | None = None) -> list[list[str]]:
    """The types that the parts of each step are told to remove.

    Args:
        steps: The steps.
        certainty: The probability of each type; then only what they are sure enough of.

    Examples:
        >>> steps = read_steps([[{"expert": 1, "told": ["noise"], "sure": 0.5}], [{"grid": ["haze"]}]])
        >>> removed_by(steps), removed_by(steps, [0.4, 0, 0.9, 0, 0, 0, 0])
        ([['noise'], ['haze']], [[], ['haze']])
    """
    parts = [[one for part in step for one in part.all()] for step in steps]
    if certainty is None:
        return [[name for one in step for name in one.told] for step in parts]
    probability = dict(zip(TYPES, certainty, strict=True))
    return [[name for one in step for name in one.told if probability[name] >= one.sure] for step in parts]


def read_steps(form: Any) -> Steps:
    """Read the ``parts`` of a form: a list of steps, each a list of parts.

    Raises:
        InvalidValueError, UnknownNameError: See :meth:`Part.read`; or there is none.
    """
    if not isinstance(form, Sequence) or not form or not all(isinstance(step, Sequence) and step for step in form):
        raise InvalidValueError(f"parts={form!r} must be a list of steps, each a list of parts")
    return tuple(tuple(Part.read(part) for part in step) for step in form)


Ramps = Mapping[str, tuple[float, float]]
"""By type the probabilities from which on something, and from which on everything, is done about it."""


def read_ramps(form: Any) -> dict[str, tuple[float, float]]:
    """Read the ``certainty`` of a form: ``{"lowlight": [0.2, 0.7]}``.

    Raises:
        InvalidValueError: Not two probabilities, of which the second is the larger.
        UnknownNameError: Not a degradation type.
    """
    ramps: dict[str, tuple[float, float]] = {}
    for name, ends in (form or {}).items():
        first, last = ends
        if not 0 <= first < last <= 1:
            raise InvalidValueError(f"certainty {name}={list(ends)}: give two probabilities, the smaller first")
        ramps[check_name(str(name), TYPES, "degradation type")] = (float(first), float(last))
    return ramps


class ComposedExpert(RestorationNetwork):
    """Steps of other experts.

    Context: what the parts need; ``certainty`` (B, 7), the probability that each type is there, 0 or 1 where that was
    said; ``scene_features`` and ``scene_embedding`` for the grid (:func:`scene_context`); for tiles
    :data:`moir.networks.base.PLACE`.

    Args:
        steps: What is done; see :data:`Steps`.
        experts: The networks, by number.
        grid: The tree's bilateral grid, if a part needs it.
        certainty: How far the picture is changed, where it is not certain that the damage is there: not at all up to
            the first probability, wholly from the second on, and in between by as much.
        own: The expert itself, if it is a part.
    """

    uses_place: ClassVar[bool] = True

    def __init__(
        self,
        steps: Steps,
        experts: Mapping[int, RestorationNetwork],
        grid: BilateralGrid | None,
        certainty: Ramps | None = None,
        own: RestorationNetwork | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.grid, self.certainty, self.own = steps, grid, dict(certainty or {}), own
        self.experts = nn.ModuleDict({str(number): network for number, network in experts.items()})

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`RestorationNetwork.forward`; the context must be given, since it is the tree's."""
        given = {} if context is None else context
        return self._made(Part(steps=self.steps, certainty=self.certainty), x, given)

    def _run(self, steps: Steps, x: torch.Tensor, context: Context) -> torch.Tensor:
        for step in steps:
            made = [self._made(part, x, context) for part in step]
            x = made[0] if len(made) == 1 else _mean(made, [part.weight for part in step])
        return x

    def _made(self, part: Part, x: torch.Tensor, context: Context) -> torch.Tensor:
        if part.steps:
            made = self._run(part.steps, x, context)
            for name, (first, last) in part.certainty.items():
                probability = recall(context, CERTAINTY, x.shape[0])[:, TYPES.index(name)]
                share = ((probability - first) / (last - first)).clamp(0, 1).to(x)
                made = x + share[:, None, None, None] * (made - x)
            return made
        told = {"remove": instruction(part.told).to(x).expand(x.shape[0], -1)} if part.told else {}
        if part.sure:
            is_there = recall(context, CERTAINTY, x.shape[0]) >= part.sure
            told["remove"] = torch.cat([told["remove"][:, :-1] * is_there, told["remove"][:, -1:]], 1)
            is_any = told["remove"][:, :-1].sum(1) > 0
            # Elsewhere than on a CPU, reading this would have the device wait; in a graph it cannot be read.
            if x.device.type == "cpu" and not torch.jit.is_tracing() and not bool(is_any.any()):
                return x
            return torch.where(is_any[:, None, None, None], self._by(part, x, {**context, **told}), x)
        return self._by(part, x, {**context, **told})

    def _by(self, part: Part, x: torch.Tensor, context: Context) -> torch.Tensor:
        """What an expert or the grid makes of it, told what the context says."""
        if part.flatten:
            x = flatten(x, part.flatten)
        if part.is_own:
            assert self.own is not None
            return self.own(x, context)
        if part.expert is not None:
            restored: torch.Tensor = self.experts[str(part.expert)](x, context)
            return restored
        assert self.grid is not None
        scene = {name: recall(context, SCENE + name, x.shape[0]) for name in DECISIONS}
        place = {PLACE: context[PLACE]} if PLACE in context else {}
        return self.grid(x, {**scene, "remove": context["remove"], **place})

    def accelerated(self, make: Callable[[RestorationNetwork], RestorationNetwork | None]) -> RestorationNetwork | None:
        """See :meth:`RestorationNetwork.accelerated`: each expert in its faster form, if it has one."""
        networks = {int(n): network for n, network in self.experts.items() if isinstance(network, RestorationNetwork)}
        faster = {number: make(network) for number, network in networks.items()}
        own = None if self.own is None else make(self.own)
        if not any(faster.values()) and own is None:
            return None
        made = {number: faster[number] or network for number, network in networks.items()}
        return ComposedExpert(self.steps, made, self.grid, self.certainty, own or self.own).eval()


def _mean(results: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    total = sum(weights)
    return torch.stack([result * (weight / total) for result, weight in zip(results, weights, strict=True)]).sum(0)


def weighed(weighing: torch.Tensor, extractor: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """One calibrated estimate of what is there, from two.

    Args:
        weighing: (3, 7), what each counts, and an offset.
        extractor, grid: (B, 7), logits.

    Examples:
        >>> weighed(torch.tensor([[0.5], [2.0], [1.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0]]))
        tensor([[8.]])
    """
    return weighing[0] * extractor + weighing[1] * grid + weighing[2]


def scene_context(decided: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a grid decided, under the names that it has in the context of a tree."""
    return {SCENE + name: decided[name] for name in DECISIONS}
