"""Pictures of what each stage made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moir.base.extras import needs_extra
from moir.base.names import CLEAN, DEGREES, TYPES
from moir.training.tree.calibration import expected_calibration_error
from moir.training.tree.cluster import Represented
from moir.training.tree.outcomes import Outcomes
from moir.universal.clustering import Clustering
from moir.universal.compact_extractor import CompactExtractor
from moir.universal.router import Route
from moir.universal.tree import Tree

SHOWN = 2000
"""Points in the plot of representations."""


def draw_embedding(found: Represented, clustering: Clustering, path: Path) -> None:
    """Representations in two dimensions (t-SNE): coloured by type and degree on the left, by leaf on the right."""
    from sklearn.manifold import TSNE

    plt = _pyplot()
    points = found.points[:SHOWN].numpy()
    place = TSNE(2, init="pca", random_state=0).fit_transform(points)
    labels = found.labels[:SHOWN]
    figure, (left, right) = plt.subplots(1, 2, figsize=(16, 8))
    for number, type_ in enumerate((*TYPES, CLEAN, "several")):
        for size, degree in enumerate((*DEGREES, None)):
            own = [i for i, label in enumerate(labels) if _kind(label.types) == type_ and label.degree == degree]
            marker = {"s": 6 + 9 * min(size, 2), "color": plt.cm.tab10(number), "alpha": 0.6, "linewidths": 0}
            name = type_ if degree in ("medium", None) and own else None
            left.scatter(*place[own].T, label=name if degree != None or type_ in (CLEAN, "several") else None, **marker)  # noqa: E711
    left.legend(markerscale=2, fontsize=9)
    left.set_title("by what was done (larger: worse)")
    leaves = clustering.tree.leaves
    for number, leaf in enumerate(leaves):
        own = (clustering.assignment[:SHOWN] == number).nonzero()[0]
        right.scatter(*place[own].T, s=10, color=plt.cm.tab20(number % 20), marker="os^v"[number // 20 % 4], alpha=0.6)
        if len(own):
            right.annotate(leaf.name, np.median(place[own], 0), fontsize=8, ha="center", weight="bold")
    right.set_title("by leaf (names: majority of the members)")
    for axis in (left, right):
        axis.set_xticks([])
        axis.set_yticks([])
    _save(figure, path)


def draw_tree(tree: Tree, members: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """The tree from left to right; beside each leaf what it holds."""
    plt = _pyplot()
    count = len(tree.leaves)
    figure, axis = plt.subplots(figsize=(15, 1 + 0.42 * count))
    height: dict[int, float] = {}
    for number in range(tree.experts):
        rows = [i for i, leaf in enumerate(tree.leaves) if number in leaf.experts]
        height[number] = -float(np.mean(rows))
    for row, leaf in enumerate(tree.leaves):
        for level, (above, below) in enumerate(zip(leaf.experts, leaf.experts[1:], strict=False)):
            axis.plot([level, level + 1], [height[above], height[below]], color="0.7", zorder=1)
        inside = list(members[leaf.name].items())[:4]
        total = sum(members[leaf.name].values())
        words = ", ".join(f"{name} {times / total:.0%}" for name, times in inside)
        axis.text(len(tree.levels) - 0.45, -row, f"n = {total}: {words}", va="center", fontsize=8, color="0.3")
    for number, y in height.items():
        level = tree.levels.index(tree.level_of(number))
        box = {"boxstyle": "round", "facecolor": plt.cm.Pastel1(level), "edgecolor": "0.5"}
        axis.text(level, y, tree.name_of(number), ha="center", va="center", fontsize=9, bbox=box, zorder=2)
    axis.set_xlim(-0.5, len(tree.levels) + 2.2)
    axis.set_ylim(-count, 1)
    axis.axis("off")
    _save(figure, path)


def draw_reliability(found: Represented, extractor: CompactExtractor, path: Path) -> dict[str, float]:
    """How often a type is there against how probable it was said to be; returns the calibration error of each type."""
    plt = _pyplot()
    probability = torch.sigmoid(found.presence_logits)
    figure, axes = plt.subplots(2, 4, figsize=(16, 8), sharex=True, sharey=True, layout="constrained")
    errors: dict[str, float] = {}
    for number, (type_, axis) in enumerate(zip(TYPES, axes.flat, strict=False)):
        said, so = probability[:, number], found.presence[:, number]
        errors[type_] = expected_calibration_error(said, so)
        axis.plot([0, 1], [0, 1], color="0.7")
        place = (said * 10).long().clamp(max=9)
        bins = [int(b) for b in place.unique()]
        x = [float(said[place == b].mean()) for b in bins]
        y = [float(so[place == b].mean()) for b in bins]
        size = [8 + 400 * float((place == b).float().mean()) for b in bins]
        axis.plot(x, y, color=plt.cm.tab10(number))
        axis.scatter(x, y, s=size, color=plt.cm.tab10(number))
        axis.set_title(f"{type_}: calibration error {errors[type_]:.3f}, n = {len(said)}")
    axes[1, 3].axis("off")
    figure.supxlabel("probability said (size: share of pictures)")
    figure.supylabel("share of pictures that have it")
    _save(figure, path)
    return errors


def draw_confusion(found: Represented, extractor: CompactExtractor, path: Path) -> None:
    """On pictures with one damage or none: which types are seen in which, and which degree."""
    plt = _pyplot()
    rows = [(t, d) for t in TYPES for d in DEGREES]
    labels = found.labels
    seen = torch.sigmoid(found.presence_logits) >= 0.5
    degree = found.degree_logits.argmax(-1)
    types = np.zeros((len(rows) + 1, len(TYPES)))
    degrees = np.full((len(rows), len(DEGREES)), np.nan)
    names = []
    for place, (type_, own) in enumerate(rows):
        members = [i for i, label in enumerate(labels) if label == ((type_,), own)]
        names.append(f"{own} {type_} (n={len(members)})")
        if members:
            types[place] = seen[members].float().mean(0)
            chosen = degree[members, TYPES.index(type_)]
            degrees[place] = [float((chosen == d).float().mean()) for d in range(len(DEGREES))]
    clean = [i for i, label in enumerate(labels) if not label.types]
    types[-1] = seen[clean].float().mean(0) if clean else 0
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 9), width_ratios=(7, 3))
    _heat(left, types, [*names, f"clean (n={len(clean)})"], TYPES, "share in which a type is seen")
    _heat(right, degrees, [""] * len(rows), DEGREES, "degree seen, of the type that is there")
    _save(figure, path)


def draw_usage(route: Route, tree: Tree, outcomes: Outcomes, path: Path) -> None:
    """Which expert the router chooses for which damage."""
    plt = _pyplot()
    expert = tree.table()[route.leaf, route.level]
    kinds = [_kind(tuple(t for t, p in zip(TYPES, row, strict=True) if p)) for row in outcomes.presence.tolist()]
    rows = [*TYPES, CLEAN, "several"]
    share = np.zeros((len(rows), tree.experts))
    names = []
    for place, kind in enumerate(rows):
        own = torch.tensor([i for i, found in enumerate(kinds) if found == kind], dtype=torch.long)
        names.append(f"{kind} (n={len(own)})")
        if len(own):
            share[place] = torch.bincount(expert[own], minlength=tree.experts).numpy() / len(own)
    figure, axis = plt.subplots(figsize=(3 + 0.5 * tree.experts, 6))
    columns = [f"{tree.name_of(n)} [{tree.level_of(n)}]" for n in range(tree.experts)]
    _heat(axis, share, names, columns, "share of pictures that go to each expert")
    axis.set_xticklabels(columns, rotation=60, ha="right", fontsize=8)
    _save(figure, path)


def draw_granularity(route: Route, tree: Tree, centres: torch.Tensor, path: Path) -> None:
    """The level chosen against the error of the estimate: the less sure, the coarser (the paper's point)."""
    plt = _pyplot()
    error = (route.mu - centres).square().mean(1).sqrt()
    order = error.argsort()
    figure, axis = plt.subplots(figsize=(8, 5))
    parts = order.chunk(10)
    x = [float(error[part].mean()) for part in parts]
    bottom = np.zeros(len(parts))
    for level, name in enumerate(tree.levels):
        share = np.array([float((route.level[part] == level).float().mean()) for part in parts])
        axis.bar(range(len(parts)), share, bottom=bottom, label=name)
        bottom += share
    axis.set_xticks(range(len(parts)), [f"{value:.2f}" for value in x])
    axis.set_xlabel("root mean square distance between estimate and centre of the own leaf, by tenths of the pictures")
    axis.set_ylabel("share of pictures at each level")
    axis.legend()
    _save(figure, path)


def _kind(types: tuple[str, ...]) -> str:
    return CLEAN if not types else types[0] if len(types) == 1 else "several"


def _heat(axis: Any, values: np.ndarray, rows: list[str], columns: Any, title: str) -> None:
    axis.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if value >= 0.005:
            colour = "white" if value > 0.6 else "black"
            axis.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_title(title)


def _pyplot() -> Any:
    with needs_extra("train", "figures need matplotlib"):
        import matplotlib as mpl
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(path, dpi=80)
    _pyplot().close(figure)
