"""Foreign checkpoints into networks, and into safetensors with a card."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moir.base.errors import CheckpointError, InvalidValueError
from moir.base.files import atomic_path, check_absent
from moir.checkpoints.architectures import detect
from moir.checkpoints.blank import blank_weights
from moir.checkpoints.card import Card, sha256_of
from moir.checkpoints.foreign import Foreign, read_foreign
from moir.checkpoints.safetensors import check_fit, load_into, write_tensors
from moir.networks.base import RestorationNetwork

Create = Callable[..., RestorationNetwork]
"""The registry's ``create_model``: this floor is below the registry and does not know it."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        weights: The safetensors file.
        card: Its card, written beside it as JSON.
        notes: What was left out, removed or replaced, in words.
    """

    weights: Path
    card: Card
    notes: list[str]


def convert(
    src: str | Path,
    dst: str | Path,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    create: Create,
    licence: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Convert a foreign checkpoint to ``DST.safetensors`` with its card ``DST.json``, which appear together.

    Args:
        src: The checkpoint; see :func:`~moir.checkpoints.foreign.read_foreign`.
        dst: The file to write; ``.safetensors`` is added if it has no suffix.
        model: Name in the registry; None: recognised by names and shapes.
        options: Options of the network, over those that are recognised.
        create: Makes a network of a name and options (:func:`moir.models.create_model`).
        licence: Licence of the weights; None: what is known of the architecture's published weights.
        overwrite: Replace files that are there.

    Raises:
        CheckpointError: The file is unsafe, damaged, not recognised, or does not fit the network; the message lists
            missing and unexpected names and differing shapes.
        InvalidValueError: ``dst`` has another suffix, or is ``src``.
        OutputExistsError: ``dst`` or its card exists and ``overwrite`` is false.
        UnknownNameError: An unknown model or option.
    """
    weights = _destination(src, Path(dst))
    card_path = weights.with_suffix(".json")
    for path in (weights, card_path):
        check_absent(path, overwrite=overwrite)
    found = read_foreign(src)
    _, card, notes = _fit(src, found, model, options, create, on_meta=True)
    card.name = weights.stem
    if licence:
        card.licence = f"{licence} (as stated by whoever converted the weights; not checked)"
    tensors = {name: t.float() if t.dtype == torch.float64 else t for name, t in found.tensors.items()}
    with atomic_path(card_path, overwrite=overwrite) as new_card, atomic_path(weights, overwrite=overwrite) as new:
        write_tensors(new, tensors, {"source": card.source, "licence": card.licence}, overwrite=True)
        card.sha256 = sha256_of(new)
        card.write(new_card, overwrite=True)
    return Conversion(weights, card, notes)


def open_foreign(path: str | Path, create: Create) -> tuple[RestorationNetwork, Card]:
    """Make the network of a foreign checkpoint, with its weights, and a card that says what is known of it.

    Args:
        path: The checkpoint.
        create: Makes a network of a name and options.

    Returns:
        The network, float32, on the CPU, in training mode; and its card.

    Raises:
        CheckpointError: The file is unsafe, damaged, not recognised, or does not fit the network.
    """
    found = read_foreign(path)
    network, card, _ = _fit(path, found, None, None, create, on_meta=False)
    load_into(network, found.tensors, path)
    return network, card


def _fit(
    src: str | Path,
    found: Foreign,
    model: str | None,
    options: Mapping[str, Any] | None,
    create: Create,
    *,
    on_meta: bool,
) -> tuple[RestorationNetwork, Card, list[str]]:
    """Make the network that the tensors belong to, check that they fit, and say what is known of them."""
    source = Path(src)
    try:
        detected = detect({name: tuple(t.shape) for name, t in found.tensors.items()}, found.settings, model)
    except CheckpointError as error:
        raise CheckpointError(f"{source} cannot be loaded: {error}") from error
    wanted = {**detected.options, **(options or {})}
    try:
        with torch.device("meta" if on_meta else "cpu"), blank_weights():
            network = create(detected.model, **wanted)
    except (InvalidValueError, TypeError) as error:
        raise CheckpointError(f"{source} cannot be loaded as {detected.model} with {wanted}: {error}") from error
    check_fit(network, found.tensors, source)
    notes = [*found.notes, *_differences(network, create, detected.model)]
    card = Card(
        name=source.stem,
        model=detected.model,
        options={**network.options, **({"adapter": wanted["adapter"]} if "adapter" in wanted else {})},
        description=f"Foreign weights of {detected.model}, not measured by moir.",
        source=f"converted from {source.name}, sha256 {sha256_of(source)}",
        licence=detected.licence,
        size_multiple=network.size_multiple,
        overlap=network.overlap,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    return network, card, notes


def _differences(network: RestorationNetwork, create: Create, model: str) -> list[str]:
    """Options that are not the published ones, in words: a checkpoint without its last blocks is found out by this."""
    usual = {name: p.default for name, p in inspect.signature(type(network)).parameters.items()}
    with torch.device("meta"):
        usual |= create(model).options
    changed = [f"{k} {v} (usual: {usual[k]})" for k, v in network.options.items() if _plain(v) != _plain(usual[k])]
    return [f"not the usual {model}: {', '.join(changed)}"] if changed else []


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _destination(src: str | Path, dst: Path) -> Path:
    if not dst.suffix:
        dst = dst.with_suffix(".safetensors")
    if dst.suffix != ".safetensors":
        raise InvalidValueError(f"{dst} must end in .safetensors; that is what is written")
    if dst.exists() and Path(src).exists() and dst.samefile(src):
        raise InvalidValueError(f"{dst} is the file to convert; give another name")
    return dst
