"""Adapters as files: a few megabytes of safetensors that know which network they belong to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moir.base.errors import CheckpointError
from moir.base.files import check_absent, write_text
from moir.models import ADAPTER, FOREIGN, shipped

if TYPE_CHECKING:
    from torch import nn

    from moir.networks.base import RestorationNetwork

FORMAT = f"{ADAPTER}-1"
"""What the header of an adapter's file says under ``format``."""


@dataclass(frozen=True)
class AdapterFacts:
    """What the header of an adapter's file says.

    Attributes:
        name: Name of the adapter.
        method: How it adapts; see :func:`moir.adapters.attach`.
        options: The method's options.
        model: The network that it belongs to, by its name in the registry.
        model_options: Options that network was built with.
        base: Fingerprint of that network's weights; see :func:`fingerprint`.
        parameters: Trained numbers.
        notes: Anything else that was written down: training data, scores.
    """

    name: str
    method: str
    options: dict[str, Any]
    model: str
    model_options: dict[str, Any]
    base: str
    parameters: int
    notes: dict[str, Any]


def fingerprint(network: nn.Module) -> str:
    """The sha256 of a network's names and numbers, without what is attached to it; in hexadecimal.

    Take it before a network is converted to another precision: that changes the numbers.
    """
    from moir.adapters import attached

    of_adapters = {
        id(tensor)
        for attachment in attached(network).values()
        for placement in attachment.placements
        for tensor in placement.adapter.state_dict(keep_vars=True).values()
    }
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict(keep_vars=True).items()):
        if id(tensor) not in of_adapters:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(_bytes()).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(
    path: str | Path,
    network: RestorationNetwork,
    name: str,
    model: str,
    notes: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> AdapterFacts:
    """Write one attachment of a network to a file, and its card (the header and the file's sha256, as JSON) beside it.

    Args:
        path: The file, ``NAME.safetensors``.
        network: The network, with the weights it was adapted from.
        name: Of the attachment.
        model: The network's name in the registry, or of the shipped weights.
        notes: Anything JSON can hold.
        overwrite: Replace a file that is there.

    Returns:
        What the file's header says.

    Raises:
        OutputExistsError: The file or its card is there, and replacing it was not asked for.
        UnknownNameError: Nothing of that name is attached.
    """
    from moir.adapters import adapter_state, attached, parameter_count
    from moir.checkpoints import write_tensors
    from moir.checkpoints.card import sha256_of

    check_absent(card_path(path), overwrite=overwrite)
    state = adapter_state(network, name)
    attachment = attached(network)[name]
    facts = AdapterFacts(
        name=name,
        method=attachment.method,
        options=attachment.options,
        model=model,
        model_options=dict(network.options),
        base=fingerprint(network),
        parameters=parameter_count(network, name),
        notes=notes or {},
    )
    header = {"format": FORMAT, **vars(facts)}
    write_tensors(path, state, header, overwrite=overwrite)
    card = json.dumps({**header, "sha256": sha256_of(path)}, indent=1, ensure_ascii=False)
    write_text(card_path(path), card + "\n", overwrite=overwrite)
    return facts


def card_path(path: str | Path) -> Path:
    """Where the card of an adapter's file lies: ``NAME.json`` beside it."""
    return Path(path).with_suffix(".json")


def read_adapter_facts(path: str | Path) -> AdapterFacts:
    """What an adapter's file says of itself.

    Raises:
        CheckpointError: The file is missing, damaged, or no adapter.
    """
    return _read(path)[0]


def load_adapter(
    network: RestorationNetwork,
    path: str | Path,
    name: str | None = None,
    *,
    any_base: bool = False,
    model: str | None = None,
) -> AdapterFacts:
    """Attach an adapter from its file to the network that it belongs to.

    Args:
        network: The network, with its weights, in float32.
        path: The file.
        name: Of the attachment; None: as in the file.
        any_base: Also accept a network of other weights than those the adapter was trained on.
        model: What messages call the network; None: its type.

    Returns:
        What the file's header says.

    Raises:
        CheckpointError: The file is missing, damaged or no adapter; or it belongs to another network, or to other
            weights. The network is left as it was.
        InvalidValueError: The name is taken.
    """
    from moir.adapters import attach, detach, load_adapter_state
    from moir.base.errors import InvalidValueError, UnknownNameError

    facts, tensors = _read(path)
    name = facts.name if name is None else name
    if not any_base and (own := fingerprint(network)) != facts.base:
        called = type(network).__name__ if model is None else model
        raise CheckpointError(
            f"{path} belongs to {facts.model} with the weights it was trained on ({facts.base[:8]}), not to this "
            f"{called} ({own[:8]}); use {facts.model} with those weights, or adapt {called} anew"
        )
    wanted = [p for p in network.parameters() if p.requires_grad]
    try:
        attach(network, facts.method, name, **facts.options)
    except UnknownNameError as error:
        raise CheckpointError(f"{path} was written by another version: {error}") from error
    try:
        load_adapter_state(network, tensors, name)
    except (CheckpointError, InvalidValueError) as error:
        detach(network, name)
        for parameter in wanted:
            parameter.requires_grad_(True)
        raise CheckpointError(f"{path}: {error}") from error
    return facts


def _read(path: str | Path) -> tuple[AdapterFacts, dict[str, Any]]:
    from moir.checkpoints import read_tensors

    if Path(path).suffix in FOREIGN or str(path) in shipped():
        raise CheckpointError(_is_no_adapter(path))
    tensors, header = read_tensors(path)
    if header.pop("format", None) != FORMAT:
        raise CheckpointError(_is_no_adapter(path))
    try:
        return AdapterFacts(**header), tensors
    except TypeError as error:
        raise CheckpointError(f"{path} has a damaged header: {error}") from error


def _is_no_adapter(path: str | Path) -> str:
    """What a file is that was given as an adapter, as far as its card says, and what to do with it."""
    from moir.checkpoints import Card

    try:
        what = f"is a network ({Card.read(card_path(path)).name}), not an adapter"
    except CheckpointError:
        what = "is a network, not an adapter" if str(path) in shipped() else f"is not an adapter ({FORMAT})"
    return (
        f"{path} {what}; a whole network is given with --model, or as moir.load({str(path)!r}), and an adapter is a "
        ".safetensors file that 'moir adapt' or 'moir train' wrote"
    )


def _bytes() -> Any:
    import torch

    return torch.uint8
