"""The tree of degradations: which expert serves a leaf at each level of granularity.

One row per leaf, one column per level, the coarsest first: ``tree.rows[leaf][level]`` is the expert's number in the
pool. The published tree has the levels ALL, TYPE and DEGREE; ours may have other numbers of groups and leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from moir.base.errors import InvalidValueError
from moir.base.names import DEGREES, TYPES, check_name

LEVELS = ("all", "type", "degree")


@dataclass(frozen=True)
class Leaf:
    """The finest group of degradations.

    Attributes:
        name: What it is called.
        types: Degradation types in it, several for a mix; empty: clean pictures, or damage that has no name here.
        experts: Its experts' numbers, the coarsest level first.
        degree: How strong they are, if the leaf stands for one degree.
        unnamed: Whether it is of damage that is none of the known types, such as salt-and-pepper noise.
    """

    name: str
    types: tuple[str, ...]
    experts: tuple[int, ...]
    degree: str | None = None
    unnamed: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether it is of pictures without damage."""
        return not self.types and not self.unnamed


@dataclass(frozen=True)
class Tree:
    """Leaves and levels.

    Attributes:
        leaves: In the order of the leaf gate.
        levels: Names of the levels, the coarsest first, in the order of the level gate.
        names: Names of the experts' groups, by number, where they have one.

    Raises:
        InvalidValueError: No leaves; a leaf without one expert per level; an expert at two levels; leaves that share an
            expert but not its parents; or a leaf with types that is unnamed.
        UnknownNameError: Not a degradation type or degree.
    """

    leaves: tuple[Leaf, ...]
    levels: tuple[str, ...] = LEVELS
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.leaves or not self.levels:
            raise InvalidValueError(f"a tree of {len(self.leaves)} leaves and {len(self.levels)} levels has no experts")
        places: dict[int, tuple[int, tuple[int, ...]]] = {}
        for number, leaf in enumerate(self.leaves):
            if len(leaf.experts) != len(self.levels) or min(leaf.experts) < 0:
                raise InvalidValueError(
                    f"leaf {number} ({leaf.name}) has experts {list(leaf.experts)}; give one per level "
                    f"({', '.join(self.levels)}), numbered from 0"
                )
            for type_ in leaf.types:
                check_name(type_, TYPES, "degradation type")
            if leaf.degree is not None:
                check_name(leaf.degree, DEGREES, "degree")
            if leaf.types and leaf.unnamed:
                raise InvalidValueError(
                    f"leaf {number} ({leaf.name}) is of {', '.join(leaf.types)} and of none of the known types; give "
                    "types, or unnamed"
                )
            for level, expert in enumerate(leaf.experts):
                place = (level, leaf.experts[:level])
                if places.setdefault(expert, place) != place:
                    raise InvalidValueError(
                        f"leaf {number} ({leaf.name}): expert {expert} stands at another place of the tree already; "
                        "an expert has one level and one parent"
                    )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Tree":
        """Make a tree of what :meth:`to_options` gave, also after a way through JSON.

        Raises:
            InvalidValueError: It is no such thing.
        """
        try:
            leaves = tuple(
                Leaf(
                    x["name"],
                    tuple(x["types"]),
                    tuple(int(e) for e in x["experts"]),
                    x.get("degree"),
                    bool(x.get("unnamed", False)),
                )
                for x in options["leaves"]
            )
            names = {int(number): str(name) for number, name in options.get("names", {}).items()}
            return cls(leaves, tuple(options.get("levels", LEVELS)), names)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InvalidValueError):
                raise
            raise InvalidValueError(f"this is not a tree (leaves, levels, names): {error!r}") from error

    def to_options(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "leaves": [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(x).items()} for x in self.leaves],
            "levels": list(self.levels),
            "names": {str(number): name for number, name in self.names.items()},
        }

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """Experts per leaf."""
        return tuple(leaf.experts for leaf in self.leaves)

    @property
    def experts(self) -> int:
        """How many experts a pool must have: the highest number, plus one."""
        return 1 + max(max(row) for row in self.rows)

    def table(self) -> torch.Tensor:
        """(leaves, levels) int64."""
        return torch.tensor(self.rows)

    def level_of(self, expert: int) -> str:
        """The level that an expert stands at.

        Raises:
            InvalidValueError: No leaf uses it.
        """
        for row in self.rows:
            if expert in row:
                return self.levels[row.index(expert)]
        raise InvalidValueError(f"no leaf uses expert {expert}; the tree's experts are {sorted({*sum(self.rows, ())})}")

    def members(self, expert: int) -> tuple[Leaf, ...]:
        """The leaves that an expert serves."""
        return tuple(leaf for leaf in self.leaves if expert in leaf.experts)

    def parent_of(self, expert: int) -> int:
        """The expert one level above; of the coarsest itself."""
        row = self.members(expert)[0].experts
        return row[max(0, row.index(expert) - 1)]

    def is_clean(self, expert: int) -> bool:
        """Whether an expert below the coarsest level serves clean pictures alone: there is nothing to restore."""
        return self.level_of(expert) != self.levels[0] and all(leaf.is_clean for leaf in self.members(expert))

    def instruction(self, expert: int) -> tuple[str, ...]:
        """The one type that an expert below the coarsest level removes; none where its leaves differ, or are mixes."""
        kinds = {leaf.types for leaf in self.members(expert) if not leaf.is_clean}
        only = next(iter(kinds)) if len(kinds) == 1 else ()
        return only if len(only) == 1 and self.level_of(expert) != self.levels[0] else ()

    def name_of(self, expert: int) -> str:
        """What an expert is called: its group's name, or the types or names of its leaves."""
        if expert in self.names:
            return self.names[expert]
        level = self.level_of(expert)
        members = self.members(expert)
        if len(members) == 1 and level == self.levels[-1]:
            return members[0].name
        types = [t for t in TYPES if any(t in leaf.types for leaf in members)]
        return "all" if len(members) == len(self.leaves) else "-".join(types) or members[0].name

    def leaf_mask(self, types: Sequence[str]) -> torch.Tensor:
        """Which leaves an instruction prunes: those with a type that is not among these.

        Where no leaf is made of these types alone, leaves that have any of them stay.

        Args:
            types: Degradation types to remove.

        Returns:
            (leaves,) bool, True for what is pruned.

        Raises:
            InvalidValueError: No types, or a type that no leaf has.
            UnknownNameError: Not a degradation type.
        """
        wanted = {check_name(type_, TYPES, "degradation type") for type_ in types}
        known = {type_ for leaf in self.leaves for type_ in leaf.types}
        if not wanted or wanted - known:
            missing = ", ".join(sorted(wanted - known)) or "nothing"
            raise InvalidValueError(
                f"this model cannot be told to remove {missing}: its experts are for {', '.join(sorted(known))}"
            )
        kept = [bool(leaf.types) and set(leaf.types) <= wanted for leaf in self.leaves]
        if not any(kept):
            kept = [bool(set(leaf.types) & wanted) for leaf in self.leaves]
        return ~torch.tensor(kept)

    def level_mask(self, leaf_mask: torch.Tensor) -> torch.Tensor:
        """Which levels are too coarse for an instruction: those whose experts also serve pruned leaves.

        Args:
            leaf_mask: (leaves,) bool, from :meth:`leaf_mask`.

        Returns:
            (levels,) bool, True for what is pruned; the finest level always stays.
        """
        table = self.table()
        pruned = []
        for level in range(len(self.levels)):
            column = table[:, level]
            pruned.append(bool(torch.isin(column[leaf_mask], column[~leaf_mask]).any()))
        pruned[-1] = False
        return torch.tensor(pruned)


def grouped(groups: Sequence[tuple[int, tuple[str, ...]]]) -> Tree:
    """A tree of three levels: one expert for all, one per group, one per leaf, numbered in this order.

    Args:
        groups: Leaves in each group, and its degradation types.

    Examples:
        >>> tree = grouped([(3, ("noise",)), (1, ("haze", "rain"))])
        >>> tree.rows
        ((0, 1, 3), (0, 1, 4), (0, 1, 5), (0, 2, 6))
        >>> tree.name_of(2), tree.leaves[0].name
        ('rain-haze', 'noise-1')
    """
    leaves: list[Leaf] = []
    for number, (count, types) in enumerate(groups, 1):
        for place in range(1, count + 1):
            finest = 1 + len(groups) + len(leaves)
            leaves.append(Leaf(f"{'-'.join(types)}-{place}", types, (0, number, finest)))
    return Tree(tuple(leaves))


def official_tree(leaves: int = 22) -> Tree:
    """The published tree: 1 + 7 + 22 experts, or the 1 + 7 + 23 of the published constructor.

    The groups' tasks are not published. Those of noise, haze, darkness and blur follow from their architectures, rain
    from its number of leaves; which of the second and third is JPEG and which snow is a guess.

    Args:
        leaves: 22, or 23 (the second group then has four).

    Raises:
        InvalidValueError: Another number.

    Examples:
        >>> official_tree().rows[9], official_tree().experts
        ((0, 4, 17), 30)
    """
    if leaves not in (22, 23):
        raise InvalidValueError(f"the published tree has 22 or 23 leaves, not {leaves}; give the tree (tree=...)")
    types = ("noise", "jpeg", "snow", "rain", "haze", "lowlight", "blur")
    return grouped([(n, (t,)) for n, t in zip((3, 3 + leaves - 22, 3, 7, 2, 2, 2), types, strict=True)])
