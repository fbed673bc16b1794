"""A network made ready to train: weights to start from, what stays as it is, the layout of its weights."""

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from moir.adapters import attached
from moir.base.errors import TrainingError
from moir.checkpoints import Card, load_into, read_foreign, read_tensors
from moir.checkpoints.architectures import detect
from moir.models import find_weights
from moir.networks.base import RestorationNetwork


def start_from(network: RestorationNetwork, model: str, start: str) -> str:
    """Load weights into a network, strictly.

    Args:
        network: As the recipe describes it.
        model: Its name in the registry.
        start: See :func:`moir.models.find_weights`; ``$NAME`` is expanded. Nothing in the file is executed.

    Returns:
        The licence under which the weights came, as far as it is known: it binds what is made from them, too.

    Raises:
        CheckpointError: The file is missing, unsafe or damaged, or does not fit the network; the message lists missing
            and unexpected names and differing shapes.
        UnknownNameError: Neither a path nor a shipped name.
    """
    path = find_weights(os.path.expandvars(start))
    card = path.with_suffix(".json")
    if path.suffix == ".safetensors" and card.exists():
        load_into(network, read_tensors(path)[0], path)
        return Card.read(card).licence
    found = read_foreign(path)
    load_into(network, found.tensors, path)
    return detect({name: tuple(t.shape) for name, t in found.tensors.items()}, model=model).licence


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Leave only the parameters trainable whose names match one of the patterns; no patterns: nothing changes.

    Raises:
        TrainingError: A pattern that matches nothing.
    """
    if not patterns:
        return
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TrainingError(
                f"model.train: {pattern!r} matches no parameter of the network; they are called "
                f"{names[0]}, {names[1]}, ..."
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def trained_part(network: nn.Module) -> nn.Module:
    """What training changes: the adapters, where any are attached, and otherwise the network itself."""
    own = [placement.adapter for attachment in attached(network).values() for placement in attachment.placements]
    return nn.ModuleList(own) if own else network


def lay_out(network: nn.Module) -> None:
    """Put the weights of convolutions channels-last; ``Module.to`` would stumble over tensors of five dimensions."""
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
