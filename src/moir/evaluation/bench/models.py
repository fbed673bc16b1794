"""The networks that are timed: shipped weights where there are any, random ones otherwise."""

from pathlib import Path

import torch

from moir.base.names import check_name
from moir.models import FOREIGN, create_model, list_models, load_model, shipped
from moir.networks.base import RestorationNetwork


def check_model(name: str) -> str:
    """Return ``name`` if it is a model that can be timed: shipped, of the registry, a weights file or ``hf://...``.

    Raises:
        UnknownNameError: None of these; the message gives near misses.
    """
    if _is_file(name):
        return name
    return check_name(name, sorted({*shipped(), *list_models(tests=True)}), "model")


def open_model(name: str) -> tuple[RestorationNetwork, str]:
    """The network, in evaluation mode, and what its weights are: ``trained`` or ``random``.

    Random weights are always the same. Layers that begin at zero, so that a branch is switched off until it is
    trained, get small random values here: otherwise the branch could be computed wrongly, or not at all, unseen.

    Raises:
        UnknownNameError, CheckpointError: See :func:`moir.models.load_model`.
    """
    if _is_file(name) or name in shipped():
        network, _ = load_model(name)
        return network.requires_grad_(False), "trained"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_model(name).eval().requires_grad_(False)
        for parameter in network.parameters():
            if not parameter.is_meta and not bool(parameter.any()):
                parameter.normal_(std=0.02)
    return network, "random"


def _is_file(name: str) -> bool:
    return name.startswith("hf://") or Path(name).suffix in (".safetensors", *FOREIGN)
