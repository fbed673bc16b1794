"""The stages of UniRestorer's training, in their order: representations, cluster, experts, router.

Each stage finds what the one before left in the run's folder, goes on where it was stopped, and does nothing where it
is done already. Several machines with one folder can share the stage ``experts``, each training some of them.
"""

import logging
import os
from pathlib import Path

import torch

from moir.base.errors import InvalidValueError, TrainingError
from moir.base.files import write_text
from moir.training.data import load_pictures
from moir.training.loop import WEIGHTS, train
from moir.training.recipe import Data, Model, Recipe
from moir.training.universal.recipe import UniRestorerRecipe
from moir.training.universal.represent import cluster, members_of, read_representations, represent
from moir.training.universal.router import train_router
from moir.training.universal.samples import Again, Patches
from moir.training.universal.steps import OnStep, device_of
from moir.universal.clustering import Clustering
from moir.universal.daclip import DaClip
from moir.universal.daclip_weights import read_controller
from moir.universal.tree import Tree

log = logging.getLogger(__name__)

STAGES = ("representations", "cluster", "experts", "router")
EXPERTS = "experts"


def run_stages(
    recipe: UniRestorerRecipe, folder: str | Path, *, device: str | None = None, on_step: OnStep | None = None
) -> Path:
    """Run one stage, or all of them.

    The folder receives ``representations/``, ``embedding.png``, ``clustering.json``, ``tree.txt``, ``tree.png``,
    ``members.png``, a run of :func:`moir.training.loop.train` per expert below ``experts/``, ``router/``, and
    ``unirestorer.safetensors``: extractor and router, referring to the experts, which :func:`moir.load` opens.

    Args:
        recipe: What to do.
        folder: Where everything is written.
        device: ``cpu``, ``cuda``; None: CUDA where there is one.
        on_step: Called after every step of experts and router.

    Returns:
        What the last stage made.

    Raises:
        TrainingError: A stage before has not run; no usable pictures; a loss that is not finite.
        CheckpointError: The extractor's weights are missing or of another kind.
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    where = device_of(device)
    stages = STAGES if recipe.stage == "all" else (recipe.stage,)
    write_text(out / "recipe.json", recipe.model_dump_json(indent=1), overwrite=True)
    result = out
    for stage in stages:
        log.info("stage %s", stage)
        if stage == "representations":
            pictures = load_pictures(recipe.data.folders, recipe.cluster.patch)
            represent(recipe, extractor_of(recipe).to(where), pictures, out, where)
            result = out / "representations"
        elif stage == "cluster":
            cluster(recipe, out)
            result = out / "clustering.json"
        elif stage == "experts":
            result = train_experts(recipe, cluster(recipe, out), out, device=device, on_step=on_step)
        else:
            result = train_router(recipe, out, extractor=extractor_of, expert_files=expert_files, device=where,
                                  on_step=on_step)  # fmt: skip
    return result


def extractor_of(recipe: UniRestorerRecipe) -> DaClip:
    """The frozen extractor that a recipe names.

    Raises:
        CheckpointError: See :func:`moir.universal.daclip_weights.read_controller`.
    """
    settings = recipe.extractor
    if settings.weights is not None:
        return read_controller(os.path.expandvars(settings.weights))
    torch.manual_seed(recipe.seed)
    return DaClip(**{**settings.options, "parts": "controller"}).eval().requires_grad_(False)


def train_experts(
    recipe: UniRestorerRecipe,
    clustering: Clustering,
    folder: Path,
    *,
    device: str | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Train the experts one after the other, each on the damage of its group's members, or one of them.

    Args:
        recipe: The recipe; its ``expert`` chooses one.
        clustering: The groups.
        folder: The run's.
        device, on_step: See :func:`run_stages`.

    Returns:
        The folder with a run per expert.

    Raises:
        InvalidValueError: No such expert.
        TrainingError: A group without members.
    """
    tree, settings = clustering.tree, recipe.experts
    if recipe.expert is not None and recipe.expert >= tree.experts:
        raise InvalidValueError(f"expert={recipe.expert}: the tree has experts 0 to {tree.experts - 1}")
    found = read_representations(folder)
    pictures = load_pictures(recipe.data.folders, settings.patch)
    for number in range(tree.experts) if recipe.expert is None else [recipe.expert]:
        members = members_of(clustering, found, number)
        if not members:
            raise TrainingError(f"the group of expert {number} ({tree.name_of(number)}) has no members to train on")
        log.info("expert %d, %s: %d members", number, tree.name_of(number), len(members))
        samples = Patches(pictures, Again(members), settings.patch, recipe.seed + 1 + number)
        train(
            expert_recipe(recipe, tree, number),
            folder / EXPERTS / f"{number:02d}",
            device=device,
            on_step=on_step,
            dataset=samples,
        )
    return folder / EXPERTS


def expert_recipe(recipe: UniRestorerRecipe, tree: Tree, number: int) -> Recipe:
    """The run of one expert."""
    settings = recipe.experts
    return Recipe(
        name=f"{recipe.name}-{number:02d}",
        model=model_of(recipe, tree, number),
        data=Data(folders=recipe.data.folders, patch=settings.patch, workers=recipe.data.workers),
        steps=settings.steps,
        batch=settings.batch,
        precision=settings.precision,
        seed=recipe.seed + 1 + number,
        loss=settings.loss,
        optimiser=settings.optimiser,
        save_every=recipe.save_every,
        log_every=recipe.log_every,
    )


def model_of(recipe: UniRestorerRecipe, tree: Tree, number: int) -> Model:
    """The network of an expert: the usual one, or that of its type if its group has one type."""
    types = {leaf.types for leaf in tree.members(number)}
    only = types.pop() if len(types) == 1 else ()
    return recipe.experts.types.get(only[0], recipe.experts.model) if len(only) == 1 else recipe.experts.model


def expert_files(recipe: UniRestorerRecipe, tree: Tree, folder: Path) -> list[Path]:
    """The trained experts' weights, by number.

    Raises:
        TrainingError: Some are not trained to their end.
    """
    files = [folder / EXPERTS / f"{number:02d}" / WEIGHTS for number in range(tree.experts)]
    missing = [str(number) for number, file in enumerate(files) if not file.is_file()]
    if missing:
        raise TrainingError(
            f"{folder / EXPERTS}: experts {', '.join(missing)} are not trained; run the stage 'experts' first "
            "(--set expert=N trains one)"
        )
    return files
