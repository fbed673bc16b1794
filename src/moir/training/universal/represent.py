"""Stage 1 of UniRestorer's training: degradation representations of many damaged pictures.

Stage 2 (:func:`cluster`) makes the tree of them. Both leave what they made as files that can be read again, and as
pictures that can be looked at.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moir.base.errors import TrainingError
from moir.base.files import write_text
from moir.checkpoints import read_tensors, write_tensors
from moir.degrade import Params
from moir.training.universal.plots import draw_embedding, draw_members, draw_tree
from moir.training.universal.recipe import UniRestorerRecipe
from moir.training.universal.samples import Patches, draw_of, label_of, records_from_json, records_to_json
from moir.universal.clustering import Clustering, Label, cluster_tree
from moir.universal.daclip import DaClip
from moir.universal.daclip_input import preprocess_batch

log = logging.getLogger(__name__)

FOLDER = "representations"
CLUSTERING = "clustering.json"


@dataclass(frozen=True)
class Represented:
    """N damaged pictures.

    Attributes:
        points: (N, features) float32, their representations, not normalised.
        records: What was done to each.
    """

    points: np.ndarray
    records: list[list[Params]]

    @property
    def labels(self) -> list[Label]:
        """What was done, in the words of labels."""
        return [label_of(params) for params in self.records]


def represent(
    recipe: UniRestorerRecipe,
    extractor: DaClip,
    pictures: list[torch.Tensor],
    folder: Path,
    device: torch.device,
) -> Represented:
    """Represent damaged pictures, and go on where that was stopped: every batch is a file of its own.

    Args:
        recipe: The recipe.
        extractor: Frozen, on the device.
        pictures: Clean ones, uint8 (3, H, W).
        folder: The run's.
        device: Where the extractor is.
    """
    settings = recipe.cluster
    samples = Patches(pictures, draw_of(recipe.data), settings.patch, recipe.seed)
    size = recipe.extractor.batch
    for start in range(0, settings.samples, size):
        path = folder / FOLDER / f"{start:08d}.safetensors"
        if path.exists():
            continue
        wanted = [samples.recorded(index) for index in range(start, min(start + size, settings.samples))]
        shown = torch.stack([sample["input"] for sample, _ in wanted]).to(device)
        with torch.inference_mode():
            points = extractor(preprocess_batch(shown, extractor.visual_control.side))
        facts = {"records": [records_to_json(params) for _, params in wanted], "batch": size, "seed": recipe.seed}
        write_tensors(path, {"points": points}, facts)
    found = read_representations(folder, settings.samples)
    draw_embedding(found.points, found.labels, folder / "embedding.png", recipe.seed)
    return found


def read_representations(folder: Path, samples: int | None = None) -> Represented:
    """Read what :func:`represent` wrote.

    Args:
        folder: The run's.
        samples: How many there must be; None: as many as there are.

    Raises:
        TrainingError: They are missing, or fewer, or made with other settings.
    """
    files = sorted((folder / FOLDER).glob("*.safetensors"))
    if not files:
        raise TrainingError(f"{folder / FOLDER} has no representations; run the stage 'representations' first")
    points: list[np.ndarray] = []
    records: list[list[Params]] = []
    for file in files:
        tensors, facts = read_tensors(file)
        points.append(tensors["points"].numpy())
        records += [records_from_json(one) for one in facts["records"]]
    all_points = np.concatenate(points)
    if samples is not None and len(all_points) != samples:
        raise TrainingError(
            f"{folder / FOLDER} holds {len(all_points)} representations, but cluster.samples is {samples}; remove the "
            "folder to make them anew, or set the number back"
        )
    return Represented(all_points, records)


def cluster(recipe: UniRestorerRecipe, folder: Path) -> Clustering:
    """Cluster the representations into the tree, or read the clustering that is there.

    A clustering is never replaced: the experts belong to it.

    Raises:
        TrainingError: The clustering there has other numbers of groups.
    """
    path = folder / CLUSTERING
    found = read_representations(folder)
    if path.exists():
        done = Clustering.load(path)
        have = group_counts(done)
        if have != list(recipe.cluster.groups):
            raise TrainingError(
                f"{path} has {have} groups, the recipe asks for {list(recipe.cluster.groups)}; remove it (and "
                "experts/, which belong to it) to cluster anew"
            )
        return done
    done = cluster_tree(found.points, found.labels, recipe.cluster.groups, recipe.seed)
    write_text(folder / "tree.txt", described(done, found.labels), overwrite=True)
    draw_tree(done, found.labels, folder / "tree.png")
    draw_members(done, found.labels, folder / "members.png")
    done.save(path)  # last: what is there is whole
    return done


def group_counts(clustering: Clustering) -> list[int]:
    """Groups per level below ``all``."""
    columns = list(zip(*clustering.tree.rows, strict=True))[1:]
    return [len(set(column)) for column in columns]


def members_of(clustering: Clustering, found: Represented, expert: int) -> list[list[Params]]:
    """Records of the pictures that an expert's group holds."""
    leaves = [n for n, leaf in enumerate(clustering.tree.leaves) if expert in leaf.experts]
    return [params for params, leaf in zip(found.records, clustering.assignment, strict=True) if leaf in leaves]


def described(clustering: Clustering, labels: Sequence[Label]) -> str:
    """The tree as text, a line per group: its expert's number, name, members, and what these are."""
    tree, lines, seen = clustering.tree, [], set()
    for row in tree.rows:
        for level, expert in enumerate(row):
            if expert in seen:
                continue
            seen.add(expert)
            leaves = [n for n, other in enumerate(tree.rows) if expert in other]
            own = [label for label, leaf in zip(labels, clustering.assignment, strict=True) if leaf in leaves]
            kinds: dict[str, int] = {}
            for label in own:
                name = " ".join(filter(None, (label.degree, "-".join(label.types) or "clean")))
                kinds[name] = kinds.get(name, 0) + 1
            most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:4]
            said = ", ".join(f"{name} {count / max(1, len(own)):.0%}" for name, count in most)
            lines.append(f"{'  ' * level}{expert:3d} {tree.name_of(expert)}: {len(own)} pictures ({said})")
    return "\n".join(lines) + "\n"


def to_json(path: Path, content: object) -> None:
    """Write plain values as JSON, replacing what is there."""
    write_text(path, json.dumps(content, indent=1) + "\n", overwrite=True)
