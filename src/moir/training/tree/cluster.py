"""Stage 2: representations of damaged pictures are clustered into the tree (UniRestorer, section 3.2)."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from moir.base.files import write_text
from moir.base.names import DEGREES, TYPES
from moir.checkpoints import load_into, read_tensors, write_tensors
from moir.training.data import load_pictures
from moir.training.tree.recipe import TreeRecipe
from moir.training.tree.views import ViewSamples
from moir.universal.clustering import Clustering, Label, cluster_tree
from moir.universal.compact_extractor import CompactExtractor

TREE = "tree.json"
REPRESENTATIONS = "representations.safetensors"
MEMBERS = "members.json"


@dataclass(frozen=True)
class Represented:
    """Damaged pictures as the extractor sees them.

    Attributes:
        points: (N, F) float32, representations.
        presence: (N, 7), 0 or 1. degree: (N, 7), index of the degree or -1.
        presence_logits: (N, 7) and degree_logits: (N, 7, 3), the extractor's estimate.
    """

    points: torch.Tensor
    presence: torch.Tensor
    degree: torch.Tensor
    presence_logits: torch.Tensor
    degree_logits: torch.Tensor

    @property
    def labels(self) -> list[Label]:
        """What was done to each picture."""
        return [label_of(p, d) for p, d in zip(self.presence.tolist(), self.degree.tolist(), strict=True)]


def label_of(presence: list[float], degree: list[int]) -> Label:
    """Types, and the degree if all types have the same."""
    types = tuple(type_ for type_, there in zip(TYPES, presence, strict=True) if there)
    degrees = {d for d, there in zip(degree, presence, strict=True) if there}
    return Label(types, DEGREES[degrees.pop()] if len(degrees) == 1 else None)


def load_extractor(recipe: TreeRecipe, path: Path) -> CompactExtractor:
    """The trained extractor, in evaluation mode."""
    extractor = CompactExtractor(recipe.extractor.features, recipe.extractor.width)
    load_into(extractor, read_tensors(path)[0], path)
    return extractor.eval().requires_grad_(False)


@torch.inference_mode()
def represent(extractor: CompactExtractor, samples: ViewSamples, count: int, workers: int) -> Represented:
    """Represent the first ``count`` samples (rounded up to whole batches)."""
    whole = -(-count // samples.batch) * samples.batch
    loader = DataLoader(Subset(samples, range(whole)), batch_size=samples.batch, num_workers=workers)
    found: dict[str, list[torch.Tensor]] = {}
    for sample in loader:
        points = extractor.represent(sample["crops"], sample["thumbnail"])
        presence, degree = extractor.estimate(points)
        rows = (points, sample["presence"], sample["degree"], presence, degree)
        for name, row in zip(Represented.__dataclass_fields__, rows, strict=True):
            found.setdefault(name, []).append(row)
    return Represented(*(torch.cat(rows) for rows in found.values()))


def make_tree(recipe: TreeRecipe, extractor: Path, folder: Path) -> Clustering:
    """Represent damaged training pictures and cluster them.

    Args:
        recipe: The run.
        extractor: Its weights.
        folder: Receives ``tree.json``, ``members.json`` (what was in each leaf) and ``representations.safetensors``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = load_extractor(recipe, extractor)
    pictures = load_pictures(recipe.data.folders, min(recipe.extractor.sizes))
    # Other samples than the extractor was trained on, from the same pictures.
    samples = ViewSamples(
        pictures, recipe.data, recipe.extractor.sizes, recipe.extractor.batch, recipe.seed + 1, most=16
    )
    found = represent(network, samples, recipe.cluster.samples, recipe.data.workers)
    clustering = cluster_tree(np.asarray(network.place(found.points)), found.labels, recipe.cluster.groups, recipe.seed)
    clustering.save(folder / TREE, overwrite=True)
    write_text(folder / MEMBERS, json.dumps(members_of(clustering, found.labels), indent=1), overwrite=True)
    write_tensors(
        folder / REPRESENTATIONS,
        {name: getattr(found, name).contiguous() for name in Represented.__dataclass_fields__},
        overwrite=True,
    )
    return clustering


def members_of(clustering: Clustering, labels: list[Label]) -> dict[str, dict[str, int]]:
    """For each leaf, by name, how many members have which damage (``noise``, ``light noise``, ``noise-haze``, ...)."""
    counts = [Counter[str]() for _ in clustering.tree.leaves]
    for leaf, label in zip(clustering.assignment.tolist(), labels, strict=True):
        counts[leaf][words(label)] += 1
    leaves = [leaf.name for leaf in clustering.tree.leaves]
    return {name: dict(count.most_common()) for name, count in zip(leaves, counts, strict=True)}


def words(label: Label) -> str:
    """``clean``, ``light noise``, ``noise-haze`` or ``light noise-haze``."""
    types = "-".join(label.types) or "clean"
    return types if label.degree is None else f"{label.degree} {types}"
