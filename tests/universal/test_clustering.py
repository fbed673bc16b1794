"""Representations into a tree."""

from pathlib import Path

import numpy as np
import pytest

from moir.base.errors import CheckpointError, InvalidValueError, UnknownNameError
from moir.universal.clustering import Clustering, Label, cluster_tree, majority_of, nearest

DEGREES = ("light", "heavy")


def blobs(count: int = 12) -> tuple[np.ndarray, list[Label]]:
    """Six groups: types far apart, degrees near each other, ten features."""
    random = np.random.default_rng(0)
    points, labels = [], []
    for type_, direction in (("noise", 0), ("rain", 1), ("haze", 2)):
        for place, degree in enumerate(DEGREES):
            centre = np.zeros(10)
            centre[direction], centre[5 + direction] = 20.0, 3.0 * place
            points.append(centre + 0.1 * random.standard_normal((count, 10)))
            labels += [Label((type_,), degree)] * count
    return np.concatenate(points), labels


def test_groups_are_found_and_named_at_every_level() -> None:
    points, labels = blobs()
    found = cluster_tree(points, labels, (3, 6))
    tree = found.tree
    assert tree.levels == ("all", "type", "degree")
    assert [leaf.name for leaf in tree.leaves] == [
        "light noise", "heavy noise", "light rain", "heavy rain", "light haze", "heavy haze",
    ]  # fmt: skip
    assert tree.rows == ((0, 1, 4), (0, 1, 5), (0, 2, 6), (0, 2, 7), (0, 3, 8), (0, 3, 9))
    assert [tree.name_of(number) for number in range(4)] == ["all", "noise", "rain", "haze"]
    assert [(leaf.types, leaf.degree) for leaf in tree.leaves[:2]] == [(("noise",), "light"), (("noise",), "heavy")]
    for label, leaf in zip(labels, found.assignment, strict=True):
        assert tree.leaves[leaf].types == label.types
        assert tree.leaves[leaf].degree == label.degree
    for leaf in range(6):
        np.testing.assert_allclose(found.centres[leaf], points[found.assignment == leaf].mean(axis=0))
    assert np.array_equal(nearest(points, found.centres), found.assignment)


def test_labels_take_no_part_in_the_clustering() -> None:
    points, labels = blobs()
    right, wrong = cluster_tree(points, labels, (3, 6)), cluster_tree(points, [Label(())] * len(labels), (3, 6))
    # The same groups, under other names and in another order.
    pairs = set(zip(right.assignment.tolist(), wrong.assignment.tolist(), strict=True))
    assert len(pairs) == 6
    assert {leaf.name for leaf in wrong.tree.leaves} == {f"clean-{number}" for number in range(1, 7)}


@pytest.mark.parametrize("groups", [(1,), (4,), (6,), (2, 2), (1, 3), (2, 4, 6)])
def test_any_number_of_levels_and_groups(groups: tuple[int, ...]) -> None:
    points, labels = blobs()
    found = cluster_tree(points, labels, groups, seed=3)
    columns = list(zip(*found.tree.rows, strict=True))
    assert [len(set(column)) for column in columns] == [1, *groups]
    assert found.tree.experts == 1 + sum(groups)
    assert sorted(set(found.assignment.tolist())) == list(range(groups[-1]))  # no leaf is empty
    again = cluster_tree(points, labels, groups, seed=3)
    assert np.array_equal(found.centres, again.centres)


def test_a_clustering_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    found = cluster_tree(*blobs(), (3, 6))
    found.save(tmp_path / "tree.json")
    again = Clustering.load(tmp_path / "tree.json")
    assert again.tree == found.tree
    assert np.array_equal(again.centres, found.centres)
    assert np.array_equal(again.assignment, found.assignment)
    for text in ("[]", "{}", "no json", '{"tree": {"leaves": []}, "centres": [], "assignment": []}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises((CheckpointError, InvalidValueError)):
            Clustering.load(tmp_path / "bad.json")
    with pytest.raises(CheckpointError, match=r"none\.json"):
        Clustering.load(tmp_path / "none.json")


def test_the_majority_names_a_group() -> None:
    rain, snow = Label(("rain",), "heavy"), Label(("snow",), "heavy")
    assert majority_of([snow, rain, rain]) == rain
    assert majority_of([snow, rain]) == majority_of([rain, snow]) == rain  # the order of the members is nothing
    mixed = majority_of([Label(("haze", "rain"), "light"), Label(("rain", "haze"), "light"), snow])
    assert mixed == Label(("rain", "haze"), "light")
    assert majority_of([rain, Label(("rain",), "light"), Label(("rain",))]).degree is None


def test_wrong_arguments_are_named() -> None:
    points, labels = blobs()
    with pytest.raises(InvalidValueError, match="none smaller than the one before"):
        cluster_tree(points, labels, (6, 3))
    with pytest.raises(InvalidValueError, match="groups="):
        cluster_tree(points, labels, ())
    with pytest.raises(InvalidValueError, match="with 71 labels"):
        cluster_tree(points, labels[1:], (3,))
    with pytest.raises(InvalidValueError, match="finite"):
        cluster_tree(np.full((3, 2), np.nan), labels[:3], (2,))
    with pytest.raises(InvalidValueError, match="1 different representations cannot make 2 groups"):
        cluster_tree(np.ones((5, 2)), labels[:5], (2,))
    with pytest.raises(UnknownNameError, match="did you mean 'rain'"):
        cluster_tree(points, [Label(("rian",))] * len(labels), (3,))
