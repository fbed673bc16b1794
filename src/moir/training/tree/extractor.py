"""Stage 1: the extractor learns to tell damages apart (UniRestorer, arXiv 2412.20157, equation 3)."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from moir.base.errors import TrainingError
from moir.checkpoints import write_tensors
from moir.models import load_model
from moir.networks.compact import Compact
from moir.runtime.device import mixed_precision
from moir.training.data import Stream, load_pictures
from moir.training.loop import update_average
from moir.training.losses import degree_loss, presence_loss
from moir.training.optimisers import make_optimiser
from moir.training.schedule import learning_rate
from moir.training.state import load_state, save_state
from moir.training.tree.recipe import ExtractorStage, TreeRecipe, schedule_of_stage
from moir.training.tree.views import ViewSamples
from moir.universal.compact_extractor import CompactExtractor, contrastive_loss

log = logging.getLogger(__name__)

WEIGHTS = "extractor.safetensors"


def train_extractor(
    recipe: TreeRecipe, folder: Path, on_step: Callable[[int, int, dict[str, float]], None] | None = None
) -> Path:
    """Train the extractor, or go on training it.

    Args:
        recipe: The run; its section ``extractor`` is used.
        folder: Receives ``state.safetensors`` (to go on), ``log.jsonl`` and ``extractor.safetensors``.
        on_step: Called after every step with steps done, all steps and the terms of the loss.

    Returns:
        The path of the weights.
    """
    stage = recipe.extractor
    folder.mkdir(parents=True, exist_ok=True)
    pictures = load_pictures(recipe.data.folders, min(stage.sizes))
    dataset = ViewSamples(pictures, recipe.data, stage.sizes, stage.batch, recipe.seed)
    torch.manual_seed(recipe.seed)
    extractor = CompactExtractor(stage.features, stage.width).train()
    if not stage.fresh:
        extractor.start_from(shared_network(recipe.base).estimator)
    extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(extractor).requires_grad_(False)
    optimiser = make_optimiser(extractor, stage.optimiser)
    done = load_state(folder, extractor, average, optimiser)
    loader = DataLoader(
        dataset,
        batch_size=stage.batch,
        sampler=Stream(done * stage.batch, stage.batch),
        num_workers=recipe.data.workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if recipe.data.workers else None,
    )
    batches: Iterator[dict[str, torch.Tensor]] = iter(loader)
    schedule, began = schedule_of_stage(stage), time.monotonic()
    for step in range(done, stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, schedule, stage.optimiser)
        found = _terms(extractor, next(batches), stage)
        torch.stack(list(found.values())).sum().backward()
        if stage.optimiser.clip:
            torch.nn.utils.clip_grad_norm_(extractor.parameters(), stage.optimiser.clip)
        optimiser.step()
        optimiser.zero_grad()
        update_average(average, extractor, min(stage.optimiser.ema, (2 + step) / (11 + step)))
        losses = {name: term.item() for name, term in found.items()}
        if on_step is not None:
            on_step(step + 1, stage.steps, losses)
        if (step + 1) % recipe.log_every == 0:
            record = {"step": step + 1, "seconds": round(time.monotonic() - began, 2), **losses}
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
        if (step + 1) % recipe.save_every == 0 or step + 1 == stage.steps:
            save_state(folder, extractor, average, optimiser, step + 1)
            write_tensors(folder / WEIGHTS, average.state_dict(), overwrite=True)
    return folder / WEIGHTS


def shared_network(name: str) -> Compact:
    """The shared network with its weights.

    Raises:
        TrainingError: It is of another architecture.
        UnknownNameError, CheckpointError: See :func:`moir.models.load_model`.
    """
    network, _ = load_model(name)
    if not isinstance(network, Compact):
        raise TrainingError(
            f"base={name!r} is a {type(network).__name__}; the shared network of a tree is a compact one"
        )
    return network


def _terms(
    extractor: CompactExtractor, sample: dict[str, torch.Tensor], stage: ExtractorStage
) -> dict[str, torch.Tensor]:
    half = mixed_precision(stage.precision, torch.device("cpu")) == "bf16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        representation = extractor.represent(sample["crops"], sample["thumbnail"]).float()
    presence, degree = extractor.estimate(representation)
    names = extractor.name_embedding(sample["presence"], sample["degree"])
    labels = [tuple(int(d) for d in row) for row in sample["degree"].tolist()]
    return {
        "contrast": stage.contrast * contrastive_loss(representation, names, labels, extractor.sharpness),
        "presence": stage.presence * presence_loss(presence, sample["presence"]),
        "degree": stage.degree * degree_loss(degree, sample["degree"]),
    }


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
