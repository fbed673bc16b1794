"""The loop that trains a controller or a router: one process, one optimiser, exact resuming."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from moir.base.errors import TrainingError
from moir.training.data import Stream, generator_of
from moir.training.loop import Progress
from moir.training.plots import draw_curves
from moir.training.state import load_state, save_state

log = logging.getLogger(__name__)

OnStep = Callable[[Progress], None]


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and what is written when.

    Attributes:
        steps: Steps of the whole run.
        batch: Samples of a step.
        rate: Learning rate of a step, counted from 0.
        workers: Processes that prepare samples.
        save_every, log_every: Steps between states, and between lines of the log.
        seed: Of whatever is drawn in a step.
    """

    steps: int
    batch: int
    rate: Callable[[int], float]
    workers: int
    save_every: int
    log_every: int
    seed: int


def fit(
    trained: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: Dataset[Any],
    loss: Callable[[dict[str, Any]], Mapping[str, torch.Tensor]],
    plan: Plan,
    folder: Path,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
) -> None:
    """Train until ``plan.steps``, from wherever the folder's state says.

    Sample number i is asked for once, whatever happened before, and whatever is drawn in a step depends on the step
    alone: a resumed run ends where an unbroken one does.

    Args:
        trained: Holds everything that changes: parameters and buffers.
        optimiser: Over the parameters that are trained.
        samples: By number, without end.
        loss: A batch, on the device, to the terms of its loss.
        plan: Lengths.
        folder: For ``state.safetensors``, ``log.jsonl`` and ``curves.png``.
        device: Where batches go.
        on_step: Called after every step.

    Raises:
        TrainingError: A term that is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    no_average = nn.Module()
    step = load_state(folder, trained, no_average, optimiser)
    if step:
        log.info("%s: going on after step %d", folder.name, step)
    loader = DataLoader(
        samples,
        batch_size=plan.batch,
        sampler=Stream(step * plan.batch, plan.batch),
        num_workers=plan.workers,
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    began = time.monotonic()
    while step < plan.steps:
        torch.manual_seed(generator_of(plan.seed, step, 0).initial_seed())
        rate = plan.rate(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = {key: _moved(value, device) for key, value in next(batches).items()}
        terms = loss(batch)
        values = {name: term.item() for name, term in terms.items()}
        total = torch.stack(list(terms.values())).sum()
        if not bool(total.isfinite()):
            said = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            raise TrainingError(
                f"{folder.name}: the loss ({said}) is not finite at step {step}; the last saved state is whole: "
                "lower the learning rate"
            )
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        step += 1
        if on_step is not None:
            on_step(Progress(step, plan.steps, values, time.monotonic() - began))
        if step % plan.log_every == 0:
            record = {"step": step, "lr": rate, "seconds": round(time.monotonic() - began, 2), **values}
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
        if step % plan.save_every == 0 or step == plan.steps:
            save_state(folder, trained, no_average, optimiser, step)
            draw_curves(folder)


def device_of(name: str | None) -> torch.device:
    """The device asked for; None: CUDA where there is one.

    Raises:
        TrainingError: It is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(f"training on {name!r} was asked for, but there is no CUDA device here; leave --device out")
    return device


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
