"""The experts of a tree that share one network: what each is, whose parameters it uses, and itself as a network."""

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any, ClassVar, Self

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.networks.base import RestorationNetwork
from moir.networks.bilateral_grid import BilateralGrid
from moir.networks.compact import Compact
from moir.universal.composed_expert import ComposedExpert
from moir.universal.expert_form import own_names
from moir.universal.expert_kinds import Composed, ExpertKind, Form, combined, copied, kind_of
from moir.universal.tree import Tree

FINE = ("stem.*", "encoder1.*", "up1.*", "down1.*", "decoder1.*", "head.*", "*.film.*")
"""What an expert has of its own: everything at half resolution, and how each block is steered."""


class ExpertParts(nn.Module):
    """The experts, for a network that holds the tree, the shared network and the bilateral grid."""

    size_multiple: ClassVar[int]
    overlap: ClassVar[int]
    tree: Tree
    base: Compact
    base_options: dict[str, Any]
    scene: BilateralGrid | None
    experts: nn.ModuleList
    trained: tuple[int, ...]
    kinds: dict[int, ExpertKind]
    steps: Composed | None

    def add_experts(
        self,
        own: Sequence[str],
        trained: Sequence[int] | None,
        forms: Mapping[str | int, Form] | None,
        steps: Sequence[Any] | None,
    ) -> None:
        """Make the experts; arguments as for :class:`~moir.universal.compact_tree.CompactUniRestorer`.

        Tiles suit every expert then: no one knows beforehand which will restore.
        """
        numbers = range(1, self.tree.experts) if trained is None else trained
        self.trained = tuple(n for n in numbers if not self.tree.is_clean(n))
        self.experts = nn.ModuleList([nn.Module() for _ in range(self.tree.experts)])
        own_names(self.base, own)  # patterns are checked even where there is no expert
        given = {int(n): form for n, form in (forms or {}).items()}
        if given.keys() - set(self.trained):
            raise InvalidValueError(f"expert {min(given.keys() - set(self.trained))} has a form, but is not trained")
        self.kinds = {n: kind_of(given.get(n, {}), self.base_options, own) for n in self.trained}
        for number, kind in sorted(self.kinds.items()):
            if isinstance(kind, Composed):
                self._check_parts(f"expert {number}", kind)
            alike = next((n for n in self.kinds if n < number and self.kinds[n] == kind), None)
            # To begin with, all of a kind are the same, and a copy costs less than another network.
            self.experts[number] = kind.own(self.base) if alike is None else copied(self.experts[alike])
        self.steps = None if steps is None else combined(steps)
        if self.steps is not None:
            self._check_parts("steps", self.steps)
        wishes = [(Compact.size_multiple, Compact.overlap)]
        wishes += [kind.tiling(self.experts[number]) for number, kind in self.kinds.items()]
        self.size_multiple = lcm(*(multiple for multiple, _ in wishes))  # type: ignore[misc]
        widest = max(overlap for _, overlap in wishes)
        self.overlap = -(-widest // self.size_multiple) * self.size_multiple  # type: ignore[misc]
        self._assembled: dict[int, RestorationNetwork] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Assembled experts share parameters with this very object; a copy assembles its own.
        return {**super().__getstate__(), "_assembled": {}}

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # A move replaces buffers, and assembled experts would keep the old ones.
        self._assembled.clear()
        super()._apply(fn, recurse)
        return self

    def takes_steps(self, number: int) -> bool:
        """Whether a number is that of the expert beyond the tree's own, which takes the steps."""
        return self.steps is not None and number == self.tree.experts

    def expert(self, number: int) -> RestorationNetwork:
        """An expert as a network of its own, in evaluation mode: shares this one's parameters.

        It takes the context that :meth:`restore_routed` gives it (:meth:`steering`).

        Args:
            number: Of the expert; one beyond the tree's: what takes the steps.

        Raises:
            InvalidValueError: An expert of clean pictures, which is no network.
        """
        if not self.takes_steps(number):
            if self.tree.is_clean(number):
                name = self.tree.name_of(number)
                raise InvalidValueError(f"expert {number} ({name}) is the identity: it has no network")
            number = self.owner_of(number)
        if number == 0:
            return self.base
        if number not in self._assembled:
            with torch.inference_mode(False):
                self._assembled[number] = self._made(number)
        return self._assembled[number]

    def _made(self, number: int) -> RestorationNetwork:
        kind = self.steps if self.steps is not None and self.takes_steps(number) else self.kinds[number]
        if not isinstance(kind, Composed):
            return kind.assembled(self.base, self.experts[number])
        own = None if kind.itself is None else kind.itself.assembled(self.base, self.experts[number])
        used = {part.expert for part in kind.parts if part.expert is not None}
        experts = {n: self.expert(n) for n in sorted(used)}
        return ComposedExpert(kind.steps, experts, self.scene, kind.certainty, own).eval()

    def _check_parts(self, whose: str, kind: Composed) -> None:
        """Check that what an expert is made of is there, and not made of others itself."""
        for part in kind.parts:
            if part.is_own:
                continue
            if part.expert is None:
                if self.scene is None:
                    raise InvalidValueError(f"a part of {whose} is a bilateral grid, and there is none: set scene")
            elif not 0 <= part.expert < self.tree.experts or self.tree.is_clean(part.expert):
                raise InvalidValueError(f"{whose} is made of expert {part.expert}, which is not there")
            elif isinstance(self.kinds.get(self.owner_of(part.expert)), Composed):
                raise InvalidValueError(f"{whose} is made of expert {part.expert}, which is made of others itself")

    def owner_of(self, number: int) -> int:
        """The expert whose parameters are used: this one, or the next above that has any."""
        while number not in self.trained and number != 0:
            number = self.tree.parent_of(number)
        return number

    def words_of(self, number: int) -> str:
        """What an expert is, for lists: ``own parameters``, ``adapter conv``, ``restormer``, ``as expert 1``, ..."""
        if self.steps is not None and self.takes_steps(number):
            return self.steps.words
        if self.tree.is_clean(number):
            return "identity"
        owner = self.owner_of(number)
        if owner != number:
            return f"as expert {owner}"
        return "shared network" if number == 0 else self.kinds[number].words

    def told(self, number: int) -> tuple[str, ...]:
        """The types that an expert is told to remove, in auto mode: its one type, or nothing.

        Nothing for the shared network, for experts of mixes, and for those that were not trained to be told.
        """
        owner = self.owner_of(number)
        kind = self.kinds.get(owner)
        return self.tree.instruction(owner) if kind is not None and kind.is_told else ()
