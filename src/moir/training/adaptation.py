"""``moir adapt``: a small adapter for the user's own damage, from a few pairs, that is never worse than its base.

The network is frozen; only an adapter (AdaptIR, arXiv 2312.08881, or another of :mod:`moir.adapters`) is trained.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moir.adapted import card_path, fingerprint, save_adapter
from moir.adapters import attach, attached, parameter_count
from moir.base.errors import InvalidValueError, TrainingError
from moir.base.files import check_absent
from moir.models import load_model
from moir.runtime.device import choose_device, choose_precision
from moir.training.adaptation_data import VIEW, HeldOut, Patches, Source, load_pairs, split
from moir.training.adaptation_fit import Fitted, Progress, digest, fit, mean
from moir.training.adaptation_settings import Adaptation


@dataclass(frozen=True)
class Adapted:
    """An adapter that was written.

    Attributes:
        path: The file; its card lies beside it, as ``.json``.
        parameters: Trained numbers.
        fitted: What training found.
    """

    path: Path
    parameters: int
    fitted: Fitted


def adapt(
    model: str,
    task: str,
    source: Source,
    output: str | Path | None = None,
    settings: Adaptation | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    overwrite: bool = False,
    on_step: Callable[[Progress], None] | None = None,
) -> Adapted:
    """Train an adapter on pairs and write it with its card, if it is better than the network alone.

    Some pairs are held out: the network is scored on them before the first step and then every few steps, the best
    state is kept, and training ends early when nothing better is found. A run that is killed goes on when it is called
    again with the same arguments; what it needs lies in ``<output without suffix>.unfinished`` until it has ended.

    Args:
        model: See :func:`moir.models.find_weights`.
        task: Name of the adapter.
        source: The pairs. Where the network makes pictures s times larger, targets are s times larger than inputs, and
            clean pictures without inputs are shrunk (bicubic).
        output: The adapter's file; None: ``TASK_adapter.safetensors``.
        settings: None: the defaults.
        device: See :func:`moir.runtime.device.choose_device`.
        precision: See :func:`moir.runtime.device.choose_precision`.
        overwrite: Replace a file that is there, and forget an unfinished run with other pairs or settings.
        on_step: Called before the first step and after each.

    Raises:
        TrainingError: Nothing better than the network alone was found (nothing is written), there are too few pairs or
            too small ones, a loss is not finite, or an unfinished run with other pairs or settings is there.
        DatasetError: Pairs are missing, unreadable, or of sizes that do not fit; the message names them.
        InvalidValueError: The network has no place for the method, or the name cannot be an adapter's.
        OutputExistsError: The file or its card is there, and replacing was not asked for.
        UnknownNameError, CheckpointError: See :func:`moir.models.load_model`.
    """
    settings = settings or Adaptation()
    path = Path(output if output is not None else f"{task}_adapter.safetensors")
    if path.suffix != ".safetensors":
        raise InvalidValueError(f"an adapter is a .safetensors file, so it cannot be written to {path}")
    for file in (path, card_path(path)):
        check_absent(file, overwrite=overwrite)
    network, card = load_model(model)
    place = choose_device(device)
    base = fingerprint(network)
    torch.manual_seed(settings.seed)  # initial weights of the adapter; patches and steps have seeds of their own
    attach(network, settings.method, task, **settings.options)
    adapters = nn.ModuleList([placement.adapter for placement in attached(network)[task].placements])

    damage = source.damage
    pairs = load_pairs(source, settings.seed, network.scale)
    training, held = split(pairs, settings)
    contents = [(pair.name, *pair.target.shape[-2:], int(pair.target.sum())) for pair in pairs]
    identity = digest([base, network.options, task, settings.model_dump(), source.spec, contents])
    folder = path.with_suffix(".unfinished")
    if overwrite and not _continues(folder, identity):
        shutil.rmtree(folder, ignore_errors=True)
    fitted = fit(
        network,
        adapters,
        Patches(training, settings, damage),
        HeldOut(held, settings.seed, damage),
        settings,
        device=place,
        dtype=choose_precision(precision, place),
        folder=folder,
        identity=identity,
        on_step=on_step,
    )
    shutil.rmtree(folder, ignore_errors=True)
    if fitted.best_step == 0:
        raise TrainingError(
            f"no adapter was written: in {fitted.steps} steps nothing better than {card.name} alone was found on the "
            f"{len(held)} pairs held out ({mean(fitted.before):.2f} dB); try more pairs, more steps, another --method, "
            "or another learning rate (--set learning_rate=...)"
        )
    notes = _notes(source, network.scale, settings, fitted, [pair.name for pair in held], len(training))
    save_adapter(path, network, task, card.name, notes, overwrite=overwrite)
    return Adapted(path, parameter_count(network, task), fitted)


def _notes(
    source: Source, scale: int, settings: Adaptation, fitted: Fitted, held: list[str], trained_on: int
) -> dict[str, Any]:
    """What the adapter's header and card say of its training."""
    if source.input is not None:
        data = f"pairs: {source.input.name} and {source.target.name} in {source.target.resolve().parent.name}"
    else:
        smaller = f"shrunk {scale} times (bicubic)" if scale != 1 else ""
        made = f"damaged on the fly with {source.spec!r}" if source.spec is not None else ""
        data = f"clean pictures of {source.target.name}, {', '.join(filter(None, (smaller, made)))}"
    return {
        "data": {"description": data, "pairs_trained_on": trained_on, "pairs_held_out": len(held)},
        "held_out": {
            "n": len(held),
            "psnr_before": round(mean(fitted.before), 3),
            "psnr_after": round(mean(fitted.after), 3),
            "better": sum(after > before for before, after in zip(fitted.before, fitted.after, strict=True)),
            "measure": f"PSNR (RGB, not rounded) of views of {VIEW} px of the target, dB; these pairs decided which "
            "state was kept",
            "pictures": held,
        },
        "training": {
            "steps": fitted.steps,
            "best_step": fitted.best_step,
            "seconds": round(fitted.seconds, 1),
            "settings": settings.model_dump(exclude={"method", "options"}),
            "learning_rate": settings.rate,
            "seed": settings.seed,
        },
    }


def _continues(folder: Path, identity: str) -> bool:
    file = folder / "record.json"
    return file.is_file() and f'"{identity}"' in file.read_text(errors="replace")
