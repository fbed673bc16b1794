"""Degradation representations into a tree of groups (UniRestorer, arXiv 2412.20157, section 3.2).

The finest groups are k-means clusters of the representations; each coarser level clusters the centres of the level
below it. Labels take no part in that: they only say what a group is called afterwards.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moir.base.errors import CheckpointError, InvalidValueError
from moir.base.extras import needs_extra
from moir.base.files import write_text
from moir.base.names import CLEAN, DEGREES, TYPES, check_name
from moir.universal.tree import LEVELS, Leaf, Tree

RESTARTS = 10
"""k-means starts from this many seedings, and the one with the least inertia counts."""


class Label(NamedTuple):
    """What was done to a picture.

    Attributes:
        types: Degradation types, several for a mix; empty: a clean picture.
        degree: How strong, where all of them have one degree.
    """

    types: tuple[str, ...]
    degree: str | None = None


@dataclass(frozen=True)
class Clustering:
    """Groups of representations.

    Attributes:
        tree: The groups, named after the majority of their members.
        centres: (leaves, features) float64, means of the finest groups, in the order of the tree's leaves.
        assignment: (N,) int64, the leaf of each representation.
    """

    tree: Tree
    centres: np.ndarray
    assignment: np.ndarray

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as JSON; :meth:`load` gives the same back, bit for bit."""
        content = {
            "tree": self.tree.to_options(),
            "centres": self.centres.tolist(),
            "assignment": self.assignment.tolist(),
        }
        write_text(path, json.dumps(content), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> "Clustering":
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: The file is missing, or is something else.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text())
            tree = Tree.from_options(content["tree"])
            centres = np.asarray(content["centres"], dtype=np.float64)
            assignment = np.asarray(content["assignment"], dtype=np.int64)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is no clustering that moir wrote: {error}") from error
        if centres.ndim != 2 or len(centres) != len(tree.leaves):
            raise CheckpointError(f"{path} has centres {centres.shape} for a tree of {len(tree.leaves)} leaves")
        return cls(tree, centres, assignment)


def cluster_tree(
    representations: np.ndarray,
    labels: Sequence[Label | tuple[tuple[str, ...], str | None]],
    groups: Sequence[int],
    seed: int = 0,
) -> Clustering:
    """Cluster representations into a tree whose coarsest level, ``all``, is one group.

    Experts are numbered level by level, the coarsest first; within a level in the order of their names' types and
    degrees, those of one parent together.

    Args:
        representations: (N, features), finite.
        labels: What each picture suffers from; see :class:`Label`.
        groups: Groups per level below ``all``, the coarsest first and never falling: ``(7, 19)`` makes 1 + 7 + 19.
        seed: Of k-means.

    Raises:
        InvalidValueError: Not as many labels as representations; representations that are not finite, or fewer
            different ones than groups; or numbers of groups that fall.
        UnknownNameError: Not a degradation type or degree.
        MissingExtraError: scikit-learn is not installed.

    Examples:
        >>> points = np.array([[0.0], [0.1], [1.0], [1.1], [9.0], [9.1]])
        >>> labels = [Label(("rain",), "light")] * 2 + [Label(("rain",), "heavy")] * 2 + [Label(("haze",))] * 2
        >>> found = cluster_tree(points, labels, (2, 3))
        >>> [leaf.name for leaf in found.tree.leaves], found.tree.rows
        (['light rain', 'heavy rain', 'haze'], ((0, 1, 3), (0, 1, 4), (0, 2, 5)))
        >>> found.assignment.tolist(), [round(x, 2) for x in found.centres[:, 0].tolist()]
        ([0, 0, 1, 1, 2, 2], [0.05, 1.05, 9.05])
    """
    points = np.asarray(representations, dtype=np.float64)
    members = [_checked(label) for label in labels]
    _check(points, members, groups)

    # -- the finest level on representations, each coarser one on the centres below it ------------------------------
    assignment, centres = _k_means(points, groups[-1], seed)
    levels = [assignment]  # of every representation, the finest level first
    above = centres
    for count in reversed(groups[:-1]):
        parents, above = _k_means(above, count, seed)
        levels.append(parents[levels[-1]])
    levels.append(np.zeros_like(assignment))
    paths = [tuple(int(x) for x in row) for row in np.stack(levels[::-1], axis=1)]  # the coarsest first

    # -- an order that people can read: parents by what they are, children within their parent ----------------------
    held: dict[tuple[int, ...], list[Label]] = {}
    for path, label in zip(paths, members, strict=True):
        for depth in range(1, len(path) + 1):
            held.setdefault(path[:depth], []).append(label)
    majority = {path: majority_of(found) for path, found in held.items()}
    order = sorted((path for path in held if len(path) == len(groups) + 1), key=lambda path: _rank(path, majority))
    numbers: dict[tuple[int, ...], int] = {}
    for depth in range(1, len(groups) + 2):
        for path in order:
            numbers.setdefault(path[:depth], len(numbers))

    # -- names ------------------------------------------------------------------------------------------------------
    names = {numbers[path]: "all" for path in held if len(path) == 1}
    for depth in range(2, len(groups) + 2):
        own = [path for path in numbers if len(path) == depth]
        finest = depth == len(groups) + 1
        called = _distinct([_name(majority[path] if finest else Label(majority[path].types)) for path in own])
        names |= {numbers[path]: name for path, name in zip(own, called, strict=True)}
    leaves = tuple(
        Leaf(
            names[numbers[path]],
            majority[path].types,
            tuple(numbers[path[:depth]] for depth in range(1, len(path) + 1)),
            majority[path].degree,
        )
        for path in order
    )
    place = {path: number for number, path in enumerate(order)}
    tree = Tree(leaves, level_names(len(groups)), names)
    return Clustering(
        tree, centres[[path[-1] for path in order]], np.array([place[path] for path in paths], dtype=np.int64)
    )


def nearest(representations: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The group whose centre is nearest (Euclidean): (N, features) and (leaves, features) to (N,) int64.

    Examples:
        >>> nearest(np.array([[0.0], [0.9]]), np.array([[1.0], [0.1]])).tolist()
        [1, 0]
    """
    points = np.asarray(representations, dtype=np.float64)
    # |a - b|^2 less |a|^2, which is the same for all centres.
    distance = (centres**2).sum(axis=1) - 2 * points @ np.asarray(centres, dtype=np.float64).T
    return distance.argmin(axis=1).astype(np.int64)


def majority_of(labels: Iterable[Label | tuple[tuple[str, ...], str | None]]) -> Label:
    """The most frequent types, and the degree that more than half of the members with these types have, if one has.

    Examples:
        >>> majority_of([Label(("rain",), "light"), Label(("rain",), "light"), Label(("snow",), "heavy")])
        Label(types=('rain',), degree='light')
        >>> majority_of([Label(("rain",), "light"), Label(("rain",), "heavy")]).degree is None
        True
    """
    found = [_checked(label) for label in labels]
    counts = Counter(label.types for label in found)
    # Of equally frequent ones the first in the order of types, whatever the order of the members.
    types = min(counts, key=lambda types: (-counts[types], _types_rank(types)))
    degrees = Counter(label.degree for label in found if label.types == types)
    degree, times = degrees.most_common(1)[0]
    return Label(types, degree if 2 * times > degrees.total() else None)


def level_names(groups: int) -> tuple[str, ...]:
    """Names of the levels, where there are ``groups`` of them below ``all``.

    Examples:
        >>> level_names(1), level_names(2), level_names(3)
        (('all', 'degree'), ('all', 'type', 'degree'), ('all', 'type', 'type-2', 'degree'))
    """
    middle = [LEVELS[1] if place == 1 else f"{LEVELS[1]}-{place}" for place in range(1, groups)]
    return (LEVELS[0], *middle, LEVELS[-1])


def _k_means(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Assignment (N,) and centres (count, features)."""
    with needs_extra("train", "clustering needs scikit-learn"):
        from sklearn.cluster import KMeans
    different = len(np.unique(points, axis=0))
    if different < count:
        raise InvalidValueError(
            f"{different} different representations cannot make {count} groups; give more pictures, or fewer groups"
        )
    found = KMeans(count, n_init=RESTARTS, random_state=seed).fit(points)
    return found.labels_.astype(np.int64), found.cluster_centers_


def _checked(label: Label | tuple[tuple[str, ...], str | None]) -> Label:
    """The label, its types in the usual order."""
    types, degree = label
    for type_ in types:
        check_name(type_, TYPES, "degradation type")
    if degree is not None:
        check_name(degree, DEGREES, "degree")
    return Label(tuple(type_ for type_ in TYPES if type_ in types), degree)


def _check(points: np.ndarray, labels: Sequence[Label], groups: Sequence[int]) -> None:
    if points.ndim != 2 or len(points) != len(labels) or not np.isfinite(points).all():
        raise InvalidValueError(
            f"expected finite representations (N, features) with N labels, got {points.shape} with {len(labels)} labels"
        )
    if not groups or min(groups) < 1 or list(groups) != sorted(groups):
        raise InvalidValueError(
            f"groups={list(groups)}: give the number of groups per level below 'all', the coarsest first, each at "
            "least 1 and none smaller than the one before, such as (7, 19)"
        )


def _types_rank(types: tuple[str, ...]) -> tuple[int, ...]:
    """Clean first, then single types in their usual order, then mixes of two, of three, ..."""
    return (len(types), *(TYPES.index(type_) for type_ in types))


def _rank(path: tuple[int, ...], majority: dict[tuple[int, ...], Label]) -> list[tuple[object, ...]]:
    """What a leaf is sorted by: each of its ancestors, the coarsest first."""
    steps: list[tuple[object, ...]] = []
    for depth in range(1, len(path) + 1):
        label = majority[path[:depth]]
        degree = -1 if label.degree is None else DEGREES.index(label.degree)
        steps.append((_types_rank(label.types), degree, path[depth - 1]))
    return steps


def _name(label: Label) -> str:
    types = "-".join(label.types) or CLEAN
    return types if label.degree is None else f"{label.degree} {types}"


def _distinct(names: Sequence[str]) -> list[str]:
    """The same names, numbered where several are equal."""
    counts, seen = Counter(names), Counter[str]()
    out = []
    for name in names:
        seen[name] += 1
        out.append(f"{name}-{seen[name]}" if counts[name] > 1 else name)
    return out
