"""The four stages of the shipped form of UniRestorer, one after the other or one alone."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from moir.base.errors import TrainingError
from moir.checkpoints import read_tensors, write_tensors
from moir.training.data import DamagedPatches, load_pictures
from moir.training.tree import assembly, cluster, experts, extractor, figures
from moir.training.tree.calibration import calibrate, weigh
from moir.training.tree.outcomes import Batch, Outcomes, measure
from moir.training.tree.recipe import STAGES, TreeRecipe
from moir.training.tree.router import train_router
from moir.universal.clustering import Clustering, nearest
from moir.universal.compact_tree import CompactUniRestorer

log = logging.getLogger(__name__)

SAVED = 400
"""Pictures after which the outcomes are written, so that a stopped run goes on there; a multiple of the batch."""

Report = Callable[[str, int, int, dict[str, float]], None]
"""Called with the stage (or expert), steps done, all steps, and the terms of the loss."""


def train_tree(recipe: TreeRecipe, folder: str | Path, on_step: Report | None = None) -> Path:
    """Run the stage that the recipe names, or all of them; what is finished is left out.

    The folder receives one folder per stage, each with its weights or tree, what is needed to go on after a stop, and
    pictures to look at; and at last ``weights.safetensors`` with its card.

    Args:
        recipe: The run.
        folder: Where everything is written.
        on_step: See :data:`Report`.

    Returns:
        What the last stage wrote.

    Raises:
        TrainingError: A stage that this one needs has not been run.
    """
    out = Path(folder)
    wanted = STAGES if recipe.stage == "all" else (recipe.stage,)
    stages = {"extractor": _extractor, "cluster": _cluster, "experts": _experts, "router": _router}
    for stage in wanted:
        log.info("stage %s", stage)
        written = stages[stage](recipe, out, on_step)
    return written


def _extractor(recipe: TreeRecipe, out: Path, on_step: Report | None) -> Path:
    own = out / "extractor"
    report = None if on_step is None else (lambda step, steps, losses: on_step("extractor", step, steps, losses))
    path = extractor.train_extractor(recipe, own, report)
    if recipe.held_out.folders:
        network = cluster.load_extractor(recipe, path)
        held_out = calibrate(network, recipe)
        write_tensors(path, network.state_dict(), overwrite=True)
        figures.draw_reliability(held_out, network, own / "reliability.png")
        figures.draw_confusion(held_out, network, own / "confusion.png")
    return path


def _cluster(recipe: TreeRecipe, out: Path, on_step: Report | None) -> Path:
    own = out / "cluster"
    clustering = cluster.make_tree(recipe, _needed(out / "extractor" / extractor.WEIGHTS), own)
    found = cluster.Represented(**read_tensors(own / cluster.REPRESENTATIONS)[0])
    figures.draw_embedding(found, clustering, own / "embedding.png")
    figures.draw_tree(clustering.tree, _members(own), own / "tree.png")
    return own / cluster.TREE


def _experts(recipe: TreeRecipe, out: Path, on_step: Report | None) -> Path:
    clustering = Clustering.load(_needed(out / "cluster" / cluster.TREE))
    own = out / "experts"
    report = None if on_step is None else (lambda name, p: on_step(name, p.step, p.steps, p.losses))
    experts.train_experts(recipe, clustering.tree, _members(out / "cluster"), own, report)
    return own


def _router(recipe: TreeRecipe, out: Path, on_step: Report | None) -> Path:
    own, stage = out / "router", recipe.router
    own.mkdir(parents=True, exist_ok=True)
    clustering = Clustering.load(_needed(out / "cluster" / cluster.TREE))
    seen = _needed(out / "extractor" / extractor.WEIGHTS)
    tree = clustering.tree
    weights = {n: _needed(experts.weights_of(out / "experts", tree, n)) for n in experts.trained_experts(recipe, tree)}
    network = assembly.assemble(recipe, tree, seen, weights)
    outcomes = _outcomes(recipe, network, own / "outcomes.safetensors", on_step)
    leaf = torch.from_numpy(nearest(np.asarray(outcomes.points), clustering.centres))
    centres = torch.from_numpy(clustering.centres).float()
    seen_before = cluster.Represented(**read_tensors(out / "cluster" / cluster.REPRESENTATIONS)[0])
    places = network.extractor.place(seen_before.points)
    more = (places, torch.from_numpy(nearest(np.asarray(places), clustering.centres)))
    router = train_router(outcomes, tree, centres, leaf, stage, recipe.seed, more)
    write_tensors(own / "router.safetensors", router.state_dict(), overwrite=True)
    figures.draw_usage(router(outcomes.points), tree, outcomes, own / "usage.png")
    figures.draw_granularity(router(outcomes.points), tree, centres[leaf], own / "granularity.png")
    network = assembly.assemble(recipe, tree, seen, weights, router)
    weigh(network, recipe)
    assembly.save(network, out / "weights.safetensors", recipe, {"samples": stage.samples})
    return out / "weights.safetensors"


def _outcomes(recipe: TreeRecipe, network: CompactUniRestorer, path: Path, on_step: Report | None) -> Outcomes:
    """What every expert makes of damaged training pictures that none was trained on: they are of another seed.

    What the file holds already is kept: of pictures that were measured before, only changed experts are run, and their
    places are found anew where the extractor changed.
    """
    stage = recipe.router
    data = recipe.data.model_copy(update={"patch": stage.size, "instruct": 0.0})
    samples = DamagedPatches(load_pictures(recipe.data.folders, stage.size), data, recipe.seed + 2)

    def damaged(numbers: range) -> Iterable[Batch]:
        return DataLoader(Subset(samples, numbers), batch_size=16, num_workers=recipe.data.workers)

    outcomes = Outcomes.load(path) if path.exists() else None
    if outcomes is not None:
        outcomes = outcomes.refreshed(network, damaged(range(len(outcomes))), stage.crop)
    while outcomes is None or len(outcomes) < stage.samples:
        done = 0 if outcomes is None else len(outcomes)
        part = measure(network, damaged(range(done, min(done + SAVED, stage.samples))), stage.crop)
        outcomes = part if outcomes is None else outcomes.followed_by(part)
        outcomes.save(path)
        if on_step is not None:
            on_step("outcomes", len(outcomes), stage.samples, {})
    outcomes.save(path)
    return outcomes


def _members(folder: Path) -> dict[str, dict[str, int]]:
    members: dict[str, dict[str, int]] = json.loads(_needed(folder / cluster.MEMBERS).read_text())
    return members


def _needed(path: Path) -> Path:
    if not path.exists():
        raise TrainingError(f"{path} is not there: run the stages before this one first ({', '.join(STAGES)})")
    return path
