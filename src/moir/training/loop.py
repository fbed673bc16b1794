"""The training loop, from top to bottom. Run it with ``moir train RECIPE``, or through ``accelerate launch``."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from moir.adapted import save_adapter
from moir.adapters import attach
from moir.base.errors import TrainingError
from moir.base.extras import needs_extra
from moir.base.files import write_text
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork
from moir.runtime.device import choose_device, mixed_precision
from moir.training.data import DamagedPatches, Stream, collate, generator_of, load_pictures, on_device
from moir.training.faster import use_faster_forms
from moir.training.losses import terms
from moir.training.meter import LossMeter
from moir.training.optimisers import make_optimiser, settle
from moir.training.pairs import PairPatches, open_pairs
from moir.training.plots import draw_curves, draw_usage
from moir.training.recipe import Recipe
from moir.training.recompute import recompute_blocks
from moir.training.schedule import learning_rate, schedule_of
from moir.training.start import freeze, lay_out, start_from, trained_part
from moir.training.state import alone_in, load_state, save_state
from moir.training.teacher import Teacher
from moir.training.usage import ExpertCounter, write_usage
from moir.training.validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

WEIGHTS, ADAPTER = "weights.safetensors", "adapter.safetensors"
"""What a run writes into its folder, each with its card."""

NEEDED = "training needs accelerate and tensorboard"


@dataclass(frozen=True)
class Progress:
    """Handed to the caller after every step.

    Attributes:
        step, steps: Steps done, and all steps.
        losses: Terms of the loss of the last step that was read: this one on a CPU; on other devices, for which reading
            means waiting, one in ``log_every``.
        seconds: Time since the run (or this part of it) began.
    """

    step: int
    steps: int
    losses: dict[str, float]
    seconds: float


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: str | None = None,
    on_step: Callable[[Progress], None] | None = None,
    dataset: DamagedPatches | PairPatches | None = None,
) -> Path:
    """Train a network, or go on training it.

    The folder receives ``recipe.json``, ``state.safetensors`` (to go on after a stop or a kill: run the same command
    again), ``weights.safetensors`` with its card ``weights.json`` (the moving average), ``log.jsonl``, TensorBoard
    files, validation pictures and ``curves.png``; of a routed network ``usage.jsonl`` and ``expert_usage.png``, too.
    Where an adapter is trained, ``adapter.safetensors`` takes the place of the weights, and the state holds it alone.

    Args:
        recipe: What to do; see :class:`moir.training.recipe.Recipe`.
        folder: Where everything is written.
        device: ``cpu``, ``cuda``, ``mps``; None: what accelerate finds.
        on_step: Called after every step, on the main process.
        dataset: Samples to train on in place of those that ``recipe.data`` describes.

    Returns:
        The path of the trained weights, or of the adapter.

    Raises:
        MissingExtraError: ``accelerate`` or ``tensorboard`` is not installed.
        TrainingError: No usable pictures, or a loss that is not finite (the message names it).
        DatasetError: Data sets are missing or not whole; known before training starts.
        CheckpointError: The weights to start from do not fit.
        OutputExistsError: Another run is at work in the folder.
    """
    with needs_extra("train", NEEDED):
        from accelerate import Accelerator

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe.model_copy(update={"precision": mixed_precision(recipe.precision, choose_device(device))})
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=device == "cpu")
    if device not in (None, "cpu") and accelerator.device.type != torch.device(device or "cpu").type:
        raise TrainingError(f"training on {device!r} was asked for, but only {accelerator.device} is available")
    with alone_in(out) if accelerator.is_main_process else nullcontext():
        return _train(recipe, out, accelerator, on_step, dataset)


def _train(
    recipe: Recipe,
    out: Path,
    accelerator: "Accelerator",
    on_step: Callable[[Progress], None] | None,
    dataset: DamagedPatches | PairPatches | None,
) -> Path:
    with needs_extra("train", NEEDED):
        from torch.utils.tensorboard import SummaryWriter

    # -- set-up ----------------------------------------------------------------------------------------------------
    dataset = _samples(recipe) if dataset is None else dataset  # PairPatches has a length
    torch.manual_seed(recipe.seed)  # initial weights; samples and steps have seeds of their own
    network = create_model(recipe.model.name, **recipe.model.options)
    licence = start_from(network, recipe.model.name, recipe.model.start) if recipe.model.start is not None else ""
    adapter = recipe.model.adapter
    if adapter is not None:
        attach(network, adapter.method, **adapter.options)
    network = network.to(accelerator.device).train()
    lay_out(network)
    average = deepcopy(network).requires_grad_(False)
    freeze(network, recipe.model.train)
    settings = recipe.optimiser
    optimiser = make_optimiser(network, settings, fused=recipe.speed.fused_optimiser)
    done = load_state(out, trained_part(network), trained_part(average), optimiser)
    if done:
        log.info("going on after step %d", done)
    settle(optimiser)
    if recipe.speed.faster_forms:
        log.info("%d layers in faster forms", use_faster_forms(network))
    if recipe.speed.recompute:
        log.info("%d blocks are recomputed", recompute_blocks(network))
    teacher = None if recipe.model.teacher is None else Teacher(recipe.model.teacher, accelerator.device)
    whole = _Pass(network)
    if recipe.speed.compile:
        whole.compile()
    pass_, step_optimiser = accelerator.prepare(whole, optimiser)

    # -- samples: they are counted from the start of the run, so that a resumed one goes on where it was -------------
    per_step = recipe.batch * recipe.accumulate * accelerator.num_processes
    schedule = schedule_of(recipe, None if dataset.epoch is None else dataset.epoch / per_step)
    stream = Stream(done * per_step, recipe.batch, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(
        dataset,
        batch_size=recipe.batch,
        sampler=stream,
        num_workers=recipe.data.workers,
        worker_init_fn=_one_thread,
        collate_fn=collate,
        pin_memory=accelerator.device.type == "cuda",
        prefetch_factor=4 if recipe.data.workers else None,
    )
    batches: Iterator[dict[str, Any]] = iter(loader)

    main = accelerator.is_main_process
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=done) if main else None
    validator = None
    if main and (recipe.validation.folders or recipe.validation.benchmarks):
        data = recipe.data
        validator = Validator(recipe.validation, data.folders, data.root, network.scale, data.told)
    counter = ExpertCounter(dataset.groups, network.options.get("num_experts", 0))
    if main:
        write_text(out / "recipe.json", recipe.model_dump_json(indent=1), overwrite=True)
    log.info("%s; %d parameters; %d steps; %s", dataset, _count(network), schedule.steps, accelerator.device)

    # -- the loop ----------------------------------------------------------------------------------------------------
    began = time.monotonic()
    meter, losses = LossMeter(recipe.accumulate), dict[str, float]()
    read_every = 1 if accelerator.device.type == "cpu" else recipe.log_every
    step = done
    while step < schedule.steps:
        # Whatever a network draws itself (routing noise) depends on the step alone, too, and differs between processes.
        torch.manual_seed(generator_of(recipe.seed, step, accelerator.process_index, 0).initial_seed())
        rate = learning_rate(step, schedule, settings)
        for group in step_optimiser.param_groups:
            group["lr"] = rate
        for turn in range(recipe.accumulate):
            sample = on_device(next(batches), accelerator.device)
            x = sample["input"].contiguous(memory_format=torch.channels_last)
            last = turn == recipe.accumulate - 1
            # Gradients are exchanged between processes only once per step.
            with nullcontext() if last else accelerator.no_sync(pass_), accelerator.autocast():
                output, context = pass_(x, sample["remove"])
                taught = None if teacher is None else teacher(x, sample["remove"])
                found = terms(network, output.float(), context, sample, recipe.loss, taught)
            meter.add(step, rate, found)
            if main:
                counter.add(getattr(network, "routes", {}), sample["groups"])
            accelerator.backward(torch.stack(list(found.values())).sum() / recipe.accumulate)
        if settings.clip:
            accelerator.clip_grad_norm_(network.parameters(), settings.clip)
        step_optimiser.step()
        step_optimiser.zero_grad()
        step += 1
        update_average(average, network, min(settings.ema, (1 + step) / (10 + step)))

        # -- what is written now and then ------------------------------------------------------------------------
        report = step % recipe.validation.every == 0 or step == schedule.steps
        save = step % recipe.save_every == 0 or step == schedule.steps
        if report or save or step % read_every == 0:
            losses = meter.fetch()
        if not main:
            continue
        if on_step is not None:
            on_step(Progress(step, schedule.steps, losses, time.monotonic() - began))
        if step % recipe.log_every == 0 and writer is not None:
            record = {"step": step, "lr": rate, "seconds": round(time.monotonic() - began, 2), **losses}
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in losses.items():
                writer.add_scalar(f"loss/{name}", value, step)
            writer.add_scalar("learning_rate", rate, step)
        if report and validator is not None and writer is not None:
            scores = validator.run(average, accelerator.device, out / "validation" / f"{step:07d}.png")
            with (out / "validation.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **scores}) + "\n")
            for name, score in scores.items():
                writer.add_scalar(f"validation/{name}", score, step)
            log.info("step %d: %s", step, ", ".join(f"{k} {v:.2f}" for k, v in scores.items()))
        if report and writer is not None:
            usage = counter.take(step)
            if usage is not None:
                write_usage(usage, out / "usage.jsonl", writer)
                draw_usage(usage, out / "expert_usage.png")
            draw_curves(out)
        if save:
            kept = recipe.state.model_dump()
            save_state(out, trained_part(network), trained_part(average), optimiser, step, **kept)
            save_result(out, average, recipe, step * per_step, dataset.credits, licence)
    accelerator.end_training()
    if writer is not None:
        writer.close()
    return out / (WEIGHTS if adapter is None else ADAPTER)


def _samples(recipe: Recipe) -> DamagedPatches | PairPatches:
    if recipe.data.folders:
        return DamagedPatches(load_pictures(recipe.data.folders, recipe.data.patch), recipe.data, recipe.seed)
    return open_pairs(recipe.data, recipe.seed)


class _Pass(nn.Module):
    """Estimate and restore in one call, which is what gradient exchange between processes needs."""

    def __init__(self, network: RestorationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, remove: torch.Tensor) -> tuple[torch.Tensor, Context]:
        if not self.network.estimates:
            return self.network(x), {}
        context = dict(self.network.analyse(x))
        # On instructed samples the instruction takes the place of the network's own estimate.
        context["remove"] = torch.where(remove[:, -1:] > 0, remove, context["remove"])
        return self.network(x, context), context


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for mean, value in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(value)


def save_result(
    folder: Path,
    network: RestorationNetwork,
    recipe: Recipe,
    samples: int,
    credits: list[dict[str, Any]],
    licence: str,
) -> None:
    """Write weights, or the adapter, and what training knows; metrics and words join the card when it is published."""
    compute = {"samples": samples, "patch": recipe.data.patch, "precision": recipe.precision}
    adapter = recipe.model.adapter
    if adapter is not None:
        notes = {
            "name": recipe.name,
            "source": f"moir train, recipe {recipe.name}, started from {recipe.model.start}",
            "licence": licence,
            "training_data": credits,
            "compute": compute,
        }
        save_adapter(folder / ADAPTER, network, adapter.method, recipe.model.name, notes, overwrite=True)
        return
    path = folder / WEIGHTS
    start = f", started from {recipe.model.start}" if recipe.model.start else ""
    write_tensors(path, network.state_dict(), overwrite=True)
    Card(
        name=recipe.name,
        model=recipe.model.name,
        options=network.options,
        source=f"moir train, recipe {recipe.name}{start}",
        licence=licence,
        training_data=credits,
        compute=compute,
        size_multiple=network.size_multiple,
        overlap=network.overlap,
        parameters=_count(network),
        sha256=sha256_of(path),
    ).write(path.with_suffix(".json"), overwrite=True)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
