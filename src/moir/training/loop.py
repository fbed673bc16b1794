"""The training loop, from top to bottom. Run it with ``moir train RECIPE``, or through ``accelerate launch``."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from moir.base.errors import MissingExtraError, TrainingError
from moir.base.files import write_text
from moir.checkpoints import Card, load_into, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork
from moir.training.data import DamagedPatches, Stream, load_pictures
from moir.training.losses import terms
from moir.training.recipe import Optimiser, Recipe
from moir.training.state import load_state, save_state
from moir.training.validation import Validator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Handed to the caller after every step.

    Attributes:
        step, steps: Steps done, and all steps.
        losses: Terms of the loss of this step.
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
) -> Path:
    """Train a network, or go on training it.

    The folder receives ``recipe.json``, ``state.safetensors`` (to go on after a stop or a kill: run the same command
    again), ``weights.safetensors`` with its card ``weights.json`` (the moving average), ``log.jsonl``, TensorBoard
    files and validation pictures.

    Args:
        recipe: What to do; see :class:`moir.training.recipe.Recipe`.
        folder: Where everything is written.
        device: ``cpu``, ``cuda``, ``mps``; None: what accelerate finds.
        on_step: Called after every step, on the main process.

    Returns:
        The path of the trained weights.

    Raises:
        MissingExtraError: ``accelerate`` or ``tensorboard`` is not installed.
        TrainingError: No usable pictures, or a loss that is not finite (the message names it).
    """
    try:
        from accelerate import Accelerator
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(f"training needs {error.name}; install it with: pip install 'moir[train]'") from error

    # -- set-up ----------------------------------------------------------------------------------------------------
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=device == "cpu")
    if device not in (None, "cpu") and accelerator.device.type != torch.device(device or "cpu").type:
        raise TrainingError(f"training on {device!r} was asked for, but only {accelerator.device} is available")
    torch.manual_seed(recipe.seed)  # initial weights; samples have seeds of their own
    network = create_model(recipe.model.name, **recipe.model.options)
    if recipe.model.start is not None:
        load_into(network, read_tensors(os.path.expandvars(recipe.model.start))[0], recipe.model.start)
    network = network.to(accelerator.device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False)
    settings = recipe.optimiser
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    done = load_state(out, network, average, optimiser)
    if done:
        log.info("going on after step %d", done)
    pass_, step_optimiser = accelerator.prepare(_Pass(network), optimiser)

    # -- data: sample numbers are counted from the start of the run, so that a resumed one goes on where it was -----
    per_step = recipe.batch * recipe.accumulate * accelerator.num_processes
    dataset = DamagedPatches(load_pictures(recipe.data.folders, recipe.data.patch), recipe.data, recipe.seed)
    stream = Stream(done * per_step, recipe.batch, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(
        dataset,
        batch_size=recipe.batch,
        sampler=stream,
        num_workers=recipe.data.workers,
        worker_init_fn=_one_thread,
        pin_memory=accelerator.device.type == "cuda",
        prefetch_factor=4 if recipe.data.workers else None,
    )
    batches: Iterator[dict[str, torch.Tensor]] = iter(loader)

    main = accelerator.is_main_process
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=done) if main else None
    validator = Validator(recipe.validation, recipe.data.folders) if main and recipe.validation.folders else None
    if main:
        write_text(out / "recipe.json", recipe.model_dump_json(indent=1), overwrite=True)
    log.info("%d pictures, %d parameters, %s", len(dataset.pictures), _count(network), accelerator.device)

    # -- the loop ----------------------------------------------------------------------------------------------------
    began = time.monotonic()
    step = done
    while step < recipe.steps:
        rate = learning_rate(step, recipe.steps, settings)
        for group in step_optimiser.param_groups:
            group["lr"] = rate
        losses: dict[str, float] = {}
        for turn in range(recipe.accumulate):
            sample = {key: value.to(accelerator.device, non_blocking=True) for key, value in next(batches).items()}
            x = sample["input"].contiguous(memory_format=torch.channels_last)
            last = turn == recipe.accumulate - 1
            # Gradients are exchanged between processes only once per step.
            with nullcontext() if last else accelerator.no_sync(pass_), accelerator.autocast():
                output, context = pass_(x, sample["remove"])
                found = terms(network, output.float(), context, sample, recipe.loss)
            for name, term in found.items():
                losses[name] = losses.get(name, 0.0) + term.item() / recipe.accumulate
            _check_finite(losses, step, rate)
            accelerator.backward(torch.stack(list(found.values())).sum() / recipe.accumulate)
        if settings.clip:
            accelerator.clip_grad_norm_(network.parameters(), settings.clip)
        step_optimiser.step()
        step_optimiser.zero_grad()
        step += 1
        update_average(average, network, min(settings.ema, (1 + step) / (10 + step)))

        # -- what is written now and then ------------------------------------------------------------------------
        if not main:
            continue
        if on_step is not None:
            on_step(Progress(step, recipe.steps, losses, time.monotonic() - began))
        if step % recipe.log_every == 0 and writer is not None:
            record = {"step": step, "lr": rate, "seconds": round(time.monotonic() - began, 2), **losses}
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in losses.items():
                writer.add_scalar(f"loss/{name}", value, step)
            writer.add_scalar("learning_rate", rate, step)
        if (
            validator is not None
            and writer is not None
            and (step % recipe.validation.every == 0 or step == recipe.steps)
        ):
            scores = validator.run(average, accelerator.device, out / "validation" / f"{step:07d}.png")
            with (out / "validation.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **scores}) + "\n")
            for name, score in scores.items():
                writer.add_scalar(f"validation/{name}", score, step)
            log.info("step %d: %s", step, ", ".join(f"{k} {v:.2f}" for k, v in scores.items()))
        if step % recipe.save_every == 0 or step == recipe.steps:
            save_state(out, network, average, optimiser, step)
            save_weights(out / "weights.safetensors", average, recipe, step * per_step)
    accelerator.end_training()
    if writer is not None:
        writer.close()
    return out / "weights.safetensors"


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


def learning_rate(step: int, steps: int, settings: Optimiser) -> float:
    """The learning rate of a step: a pure function, so that a run can be resumed, or made longer, at any time.

    Examples:
        >>> settings = Optimiser(learning_rate=1.0, final_rate=0.0, warmup=10)
        >>> [round(learning_rate(s, 110, settings), 3) for s in (0, 9, 10, 60, 110)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    top, bottom = settings.learning_rate, settings.final_rate
    if step < settings.warmup:
        return top * (step + 1) / settings.warmup
    if settings.schedule == "cosine":
        done = (step - settings.warmup) / max(1, steps - settings.warmup)
        return bottom + (top - bottom) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    falling = settings.decay * steps
    return bottom + (top - bottom) * min(1.0, max(0.0, (steps - step) / max(1.0, falling)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for mean, value in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(value)


def save_weights(path: Path, network: RestorationNetwork, recipe: Recipe, samples: int) -> None:
    """Write weights and the facts that training knows; metrics and words join the card when it is published."""
    write_tensors(path, network.state_dict(), overwrite=True)
    Card(
        name=recipe.name,
        model=recipe.model.name,
        options=network.options,
        source=f"moir train, recipe {recipe.name}",
        compute={"samples": samples, "patch": recipe.data.patch, "precision": recipe.precision},
        size_multiple=network.size_multiple,
        overlap=network.overlap,
        parameters=_count(network),
        sha256=sha256_of(path),
    ).write(path.with_suffix(".json"), overwrite=True)


def _check_finite(losses: dict[str, float], step: int, rate: float) -> None:
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"the loss term {' and '.join(broken)} is not finite at step {step} (learning rate {rate:.2e}); "
            "the last saved state is whole: lower optimiser.learning_rate, clip harder, or use precision 'no'"
        )


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
