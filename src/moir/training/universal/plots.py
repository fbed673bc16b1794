"""Pictures of UniRestorer's training: representations, the tree, what is told apart, which experts are used."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moir.base.extras import needs_extra
from moir.base.names import CLEAN, DEGREES, TYPES
from moir.evaluation.report.figure import new_figure
from moir.universal.clustering import Clustering, Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 2000
"""Points of an embedding: more are slow to lay out and hide each other."""

DEGREE_COLOURS = ("#8ecae6", "#fb8500", "#9b2226", "#bbbbbb")


def draw_embedding(points: np.ndarray, labels: Sequence[Label], path: Path, seed: int = 0) -> None:
    """Draw representations in two dimensions (t-SNE), once coloured by type, once by degree.

    Args:
        points: (N, features).
        labels: What each picture suffers from.
        path: The PNG to write.
        seed: Which of many points are drawn, and t-SNE's.

    Raises:
        MissingExtraError: matplotlib or scikit-learn is not installed.
    """
    shown = np.random.default_rng(seed).permutation(len(points))[:MOST]
    place = embed(points[shown], seed)
    chosen = [labels[i] for i in shown]
    figure = new_figure(13, 6)
    left, right = figure.subplots(1, 2)
    types = ["-".join(label.types) or CLEAN for label in chosen]
    _scatter(left, place, types, [t for t in (CLEAN, *TYPES) if t in types], None)
    degrees = [label.degree or "mixed or none" for label in chosen]
    _scatter(right, place, degrees, [*DEGREES, "mixed or none"], DEGREE_COLOURS)
    left.set_title(f"by type ({len(chosen)} pictures)")
    right.set_title("by degree")
    figure.suptitle("degradation representations, t-SNE")
    figure.savefig(path)


def embed(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, features) to (N, 2) by t-SNE; below five points, their first two principal components.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("train", "plots need scikit-learn"):
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    few = PCA(min(50, *points.shape), random_state=seed).fit_transform(points.astype(np.float64))
    if len(points) < 5:
        return np.pad(few, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(30.0, (len(points) - 1) / 3)
    layout: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(few)
    return layout


def draw_tree(clustering: Clustering, labels: Sequence[Label], path: Path) -> None:
    """Draw the tree: a column per level, every group with its number, name and members.

    Args:
        clustering: The groups.
        labels: What each clustered picture suffers from.
        path: The PNG to write.
    """
    tree, rows = clustering.tree, clustering.tree.rows
    sizes = np.bincount(clustering.assignment, minlength=len(rows))
    figure = new_figure(3.4 * len(tree.levels), 1 + 0.32 * len(rows))
    axes = figure.subplots()
    where: dict[int, tuple[float, float]] = {}
    for level in range(len(tree.levels)):
        for expert in dict.fromkeys(row[level] for row in rows):
            leaves = [n for n, row in enumerate(rows) if row[level] == expert]
            where[expert] = (float(level), -float(np.mean(leaves)))
            axes.text(
                *where[expert],
                f"{expert}  {tree.name_of(expert)}  ({sizes[leaves].sum()})",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#888888"},
            )
    for row in rows:
        for parent, child in pairwise(row):
            (x0, y0), (x1, y1) = where[parent], where[child]
            axes.plot([x0, x0 + 0.72, x1], [y0, y1, y1], color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set(xlim=(-0.1, len(tree.levels) - 0.1), ylim=(-len(rows) + 0.3, 0.7))
    axes.axis("off")
    axes.set_title(
        f"{' / '.join(tree.levels)}: number, name (pictures) of every group; {len(labels)} pictures", fontsize=9
    )
    figure.savefig(path)


def draw_members(clustering: Clustering, labels: Sequence[Label], path: Path) -> None:
    """Draw what the finest groups hold: types and degrees by leaves, each row summing to 1."""
    said = [" ".join(filter(None, (label.degree, "-".join(label.types) or CLEAN))) for label in labels]
    order = sorted(
        set(said), key=lambda name: min(_rank(label) for label, s in zip(labels, said, strict=True) if s == name)
    )
    counts = np.zeros((len(order), len(clustering.tree.leaves)))
    for name, leaf in zip(said, clustering.assignment, strict=True):
        counts[order.index(name), leaf] += 1
    draw_matrix(counts, order, [leaf.name for leaf in clustering.tree.leaves], path, "damage", "finest group")


def draw_matrix(
    counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], path: Path, down: str, across: str
) -> None:
    """Draw a matrix of counts as shares of its rows; more than 40 rows are cut to the most frequent.

    Args:
        counts: (rows, columns).
        rows, columns: Their names.
        path: The PNG to write.
        down, across: What rows and columns are.
    """
    if len(rows) > 40:
        kept = sorted(np.argsort(-counts.sum(axis=1), kind="stable")[:40])
        counts, rows = counts[kept], [rows[i] for i in kept]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure = new_figure(3.2 + 0.38 * len(columns), 2 + 0.26 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), list(columns), rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{name} ({int(n)})" for name, n in zip(rows, counts.sum(axis=1), strict=True)])
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel=across, ylabel=f"{down} (pictures)")
    figure.colorbar(image, ax=axes, label="share of the row")
    figure.savefig(path)


def draw_granularity(error: np.ndarray, level: np.ndarray, levels: Sequence[str], path: Path) -> None:
    """Draw which granularity is chosen for which estimation error: the shares of the levels by tenths of the error.

    Args:
        error: (N,), how far the estimate is from the centre of the picture's group.
        level: (N,), the level that was chosen.
        levels: Their names, the coarsest first.
        path: The PNG to write.
    """
    order = np.array_split(np.argsort(error, kind="stable"), min(10, len(error)))
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    bottom = np.zeros(len(order))
    for number, name in enumerate(levels):
        shares = np.array([(level[part] == number).mean() for part in order])
        axes.bar(range(len(order)), shares, bottom=bottom, label=name)
        bottom += shares
    axes.set_xticks(range(len(order)), [f"{error[part].mean():.2g}" for part in order])
    axes.set(xlabel="estimation error (mean of each tenth of the pictures)", ylabel="share of pictures", ylim=(0, 1))
    axes.legend(title="granularity", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)


def _scatter(
    axes: "Axes", place: np.ndarray, names: Sequence[str], order: Sequence[str], colours: Sequence[str] | None
) -> None:
    found = np.array(names)
    others = sorted(set(names) - set(order))
    every = [name for name in (*order, *others) if name in names]
    for number, name in enumerate(every):
        at = place[found == name]
        colour = colours[list(order).index(name)] if colours and name in order else f"C{number % 10}"
        marker = "osD^v<>P*X"[number // 10 % 10]
        axes.scatter(at[:, 0], at[:, 1], s=9, color=colour, marker=marker, label=f"{name} ({len(at)})")
    axes.set_xticks([])
    axes.set_yticks([])
    if len(every) <= 24:
        axes.legend(fontsize=6, markerscale=1.5, loc="best")


def _rank(label: Label) -> tuple[int, tuple[int, ...], int]:
    types = tuple(TYPES.index(type_) for type_ in label.types)
    return len(types), types, -1 if label.degree is None else DEGREES.index(label.degree)
