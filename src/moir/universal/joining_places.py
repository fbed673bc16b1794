"""Where in a tree a joining network stands: in place of a group's expert, or at a new leaf."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.base.names import TYPES, check_name, near_misses
from moir.universal.tree import Tree

TRIAL = (1, 3, 24, 20)
"""Shape of the random picture that a network restores before it may join."""


@dataclass(frozen=True)
class Joined:
    """What was written.

    Attributes:
        path: The pool, or the weights of the tree.
        expert: The network's number in it.
        group: Its group.
        model: What the network is.
        is_new: Whether the group is new, so that nothing chooses it before the router is trained again.
    """

    path: Path
    expert: int
    group: str
    model: str
    is_new: bool


def expert_of(tree: Tree, group: str) -> int | None:
    """The number of a group's expert, by its name or by that number; None: the tree has no such group."""
    named = {tree.name_of(number): number for row in reversed(tree.rows) for number in reversed(row)}
    named |= {str(number): number for row in tree.rows for number in row}
    return named.get(group)


def check_kept(group: str, expert: int, types: Sequence[str], degree: str | None) -> None:
    """Check that nobody gives types for a group that is there.

    Raises:
        InvalidValueError: Someone does.
    """
    if types or degree:
        raise InvalidValueError(
            f"{group!r} is expert {expert} of the tree already, and keeps its types; leave types and degree out"
        )


def types_of(group: str, types: Sequence[str], tree: Tree, unnamed: str | None = None) -> tuple[str, ...]:
    """The types of a new group, in the usual order.

    Args:
        group: Its name.
        types: As given.
        tree: The tree that does not have it.
        unnamed: What is given where the damage is none of the known types, if the tree can have such a group.

    Raises:
        UnknownNameError: There are none: the group's name was meant to be one of the tree's. Or one is unknown.
    """
    if unnamed is not None and tuple(types) == (unnamed,):
        return ()
    if types:
        for type_ in types:
            check_name(type_, TYPES, "degradation type")
        return tuple(type_ for type_ in TYPES if type_ in types)
    known = list(dict.fromkeys(tree.name_of(number) for level in zip(*tree.rows, strict=True) for number in level))
    near = near_misses(group, known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    other = f", or --types {unnamed} if it is none of the known types" if unnamed is not None else ""
    raise UnknownNameError(
        f"the tree has no group {group!r}; {hint} For a new group name its types: --types rain,haze{other}"
    )
