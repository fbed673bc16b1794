"""Training a part of a network, such as its adapters, on few pairs: step 0 is scored too, and the best state is kept.

This is not :func:`moir.training.loop.train`, though it takes its parts (losses, schedule, moving average, state) from
there. That loop makes a network and runs to its end on a stream of samples, on several processes; here everything turns
around the held-out pairs: they are scored before the first step, decide what is kept and when it ends, and may decide
that nothing is kept. As branches of one loop neither could be read from top to bottom.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moir.base.errors import TrainingError
from moir.base.files import write_text
from moir.checkpoints import read_tensors, write_tensors
from moir.metrics import psnr
from moir.networks.base import RestorationNetwork
from moir.training.adaptation_data import HeldOut, Patches
from moir.training.adaptation_settings import Adaptation
from moir.training.data import generator_of
from moir.training.loop import update_average
from moir.training.losses import terms
from moir.training.recipe import Optimiser
from moir.training.schedule import Schedule, learning_rate
from moir.training.state import STATE, load_state, save_state

PLAN = 1000
"""The schedule counts in thousandths of the run, which may be limited by steps, by time, or by both."""

NORMED = 8
"""Batches over which the running statistics of batch norms are measured."""

_NORM, _NETWORK = 1, 2  # streams of random numbers; that of the patches to train on is 0

SMALLEST_GAIN = 0.01
"""A state counts as better only by this much, dB."""


@dataclass(frozen=True)
class Progress:
    """Handed to the caller after every step, and once before the first.

    Attributes:
        step: Steps done.
        share: Of the run that is planned, 0..1.
        loss: Of this step; None before the first.
        scored: Mean PSNR on the held-out pairs, if they were scored after this step, dB.
        base: The same of the network as it was.
        best: The best so far.
        seconds: Time spent, pauses of a continued run left out.
    """

    step: int
    share: float
    loss: float | None
    scored: float | None
    base: float
    best: float
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """What came out.

    Attributes:
        before, after: PSNR of each held-out pair as the network was, and with the best state, dB.
        best_step: The step of that state; 0: nothing was better than what was there.
        steps: Steps done.
        seconds: Time spent.
    """

    before: list[float]
    after: list[float]
    best_step: int
    steps: int
    seconds: float

    @property
    def gain(self) -> float:
        """Mean gain on the held-out pairs, dB."""
        return mean(self.after) - mean(self.before)


@dataclass
class _Record:
    """What has been found so far; kept in a file beside the state of the run."""

    identity: str
    before: list[float]
    after: list[float]
    best_step: int = 0
    seconds: float = 0.0


def fit(
    network: RestorationNetwork,
    part: nn.Module,
    patches: Patches,
    held: HeldOut,
    settings: Adaptation,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    identity: str = "",
    on_step: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Train the parameters of ``part`` that need a gradient, and leave it in its best state on the held-out pairs.

    Everything else of the network is in evaluation mode: it works as it will, and nothing of it drifts. The states that
    are scored are moving averages of the weights, with running statistics measured anew for each.

    Args:
        network: With its weights, float32.
        part: The modules that are trained: a list of adapters, or the network itself.
        patches: To train on.
        held: To score.
        settings: See :class:`moir.training.adaptation_settings.Adaptation`.
        device: Where to train.
        dtype: Of autocast; float32: none.
        folder: Where the run is kept, to go on after a kill; None: nowhere.
        identity: What the run is, in any words; a run in ``folder`` that is another one is not continued.
        on_step: Called after every step.

    Raises:
        TrainingError: A loss that is not finite, or another run in ``folder``.
    """
    began = time.monotonic()
    network.to(device).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    part.train()
    average = deepcopy(part).requires_grad_(False)
    rates = Optimiser(learning_rate=settings.rate, final_rate=0.0)
    plan = Schedule(PLAN, max(1, round(settings.warmup * PLAN)), PLAN)
    trained = [parameter for parameter in part.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, betas=(0.9, 0.99), weight_decay=settings.weight_decay)

    if folder is not None and (folder / STATE).exists():
        record, best = _read(folder, identity)
        step = load_state(folder, part, average, optimiser)
    else:
        part.eval()
        before = score(network, held, device, dtype)
        record, best, step = _Record(identity, before, list(before)), _copy(part), 0
        part.train()
    spent = record.seconds

    def share() -> float:
        """How much of the run is done: the nearer of its limits counts."""
        by_steps = step / settings.most_steps if settings.most_steps else 0.0
        by_time = (spent + time.monotonic() - began) / (60 * settings.minutes) if settings.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def tell(loss: float | None, scored: float | None) -> None:
        if on_step is not None:
            seconds = spent + time.monotonic() - began
            on_step(Progress(step, share(), loss, scored, mean(record.before), mean(record.after), seconds))

    tell(None, mean(record.before) if step == 0 else None)
    over, patience = share() >= 1, settings.patience * settings.check_every
    while not over and step - record.best_step < patience:
        rate = learning_rate(int(share() * PLAN), plan, rates)
        for group in optimiser.param_groups:
            group["lr"] = rate
        # Whatever a network draws itself depends on the step alone, too.
        torch.manual_seed(generator_of(settings.seed, step, _NETWORK).initial_seed())
        x, target = (tensor.to(device) for tensor in patches.batch(step))
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not torch.float32):
            output = network(x.contiguous(memory_format=torch.channels_last))
        found = terms(network, output.float(), {}, {"target": target}, settings.loss)
        loss = torch.stack(list(found.values())).sum()
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss is not finite at step {step} (learning rate {rate:.2e}); lower learning_rate"
            )
        loss.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        over = share() >= 1
        update_average(average, part, min(settings.ema, (1 + step) / (10 + step)))

        scored = None
        if step % settings.check_every == 0 or over:
            with _standing_in(part, average):
                recalibrate(network, part, patches, device, dtype)
                after = score(network, held, device, dtype)
                scored = mean(after)
                if scored > mean(record.after) + SMALLEST_GAIN:
                    best, record.after, record.best_step = _copy(part), after, step
            if folder is not None:
                record.seconds = spent + time.monotonic() - began
                _write(folder, record, best)
                save_state(folder, part, average, optimiser, step)
        tell(loss.item(), scored)
    part.load_state_dict(best)
    part.eval()
    seconds = spent + time.monotonic() - began
    return Fitted(record.before, record.after, record.best_step, step, seconds)


@torch.no_grad()
def score(
    network: RestorationNetwork, held: HeldOut, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> list[float]:
    """PSNR (RGB, not rounded) of each held-out pair, the mean over its views, dB; at most 100, for "exact"."""
    values = []
    for inputs, targets in held.views:
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not torch.float32):
            restored = network((inputs.float() / 255).to(device)).float().clamp(0, 1).cpu()
        values.append(float(psnr(restored, targets.float() / 255).clamp(max=100).mean()))
    return values


@torch.no_grad()
def recalibrate(
    network: RestorationNetwork, part: nn.Module, patches: Patches, device: torch.device | str, dtype: torch.dtype
) -> None:
    """Measure the running statistics of the batch norms of ``part`` for its present weights, over patches to train on.

    Those of training lag behind the weights, and averaged weights never had any.
    """
    norms = [module for module in part.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = part.training
    part.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over what follows
    for number in range(NORMED):
        x = patches.batch(number, _NORM)[0].to(device)
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not torch.float32):
            network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    part.train(was_training)


def mean(values: list[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def digest(facts: Any) -> str:
    """A short name of anything JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def _standing_in(part: nn.Module, average: nn.Module) -> Iterator[None]:
    """Evaluate the averaged weights in the place of those that are trained."""
    live = _copy(part)
    part.load_state_dict(average.state_dict())
    part.eval()
    try:
        yield
    finally:
        part.load_state_dict(live)
        part.train()


def _copy(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in part.state_dict().items()}


def _write(folder: Path, record: _Record, best: dict[str, torch.Tensor]) -> None:
    write_tensors(folder / "best.safetensors", best, {"step": record.best_step}, overwrite=True)
    write_text(folder / "record.json", json.dumps(vars(record), indent=1) + "\n", overwrite=True)


def _read(folder: Path, identity: str) -> tuple[_Record, dict[str, torch.Tensor]]:
    try:
        record = _Record(**json.loads((folder / "record.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{folder} holds a run that cannot be continued ({error}); remove it to start anew") from (
            error
        )
    if record.identity != identity:
        raise TrainingError(
            f"{folder} holds an unfinished run with other pairs or settings; repeat its command to go on with it, or "
            "remove it (or allow overwriting) to start anew"
        )
    return record, read_tensors(folder / "best.safetensors")[0]
