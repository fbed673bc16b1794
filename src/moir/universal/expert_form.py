"""What an expert of the shipped tree is made of, where it is more than the shared network with other numbers in it."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.networks.compact import Compact


def with_form(base: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an expert's network: those of the shared network, with what the form changes.

    Args:
        base: Options of the shared network.
        form: Options that differ: more blocks. Widths cannot differ, since the rest is shared.

    Raises:
        InvalidValueError: A form that changes something else than numbers of blocks.
    """
    for name in form:
        if not name.endswith("_blocks"):
            raise InvalidValueError(
                f"an expert cannot have another {name!r} than the network it shares: only numbers of blocks"
            )
    return {**base, **form}


def own_names(base: nn.Module, patterns: Sequence[str], expert: nn.Module | None = None) -> list[str]:
    """Names of the parameters that an expert has of its own: those that match a pattern, or that the base lacks.

    Args:
        base: The shared network.
        patterns: Of names, as in :mod:`fnmatch`.
        expert: The expert's network; None: it has the shape of ``base``.

    Raises:
        InvalidValueError: A pattern that matches nothing.
    """
    shared = {name for name, _ in base.named_parameters()}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shared):
            raise InvalidValueError(f"own={pattern!r} matches no parameter of the shared network, like {min(shared)}")
    names = [name for name, _ in (expert or base).named_parameters()]
    return [n for n in names if n not in shared or any(fnmatchcase(n, pattern) for pattern in patterns)]


@torch.no_grad()
def grown(weights: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> Compact:
    """A network with more blocks that restores, to begin with, exactly as the one whose weights these are.

    Each block that is added ends the blocks of its scale, and adds nothing: its second convolution is zero.

    Args:
        weights: State dict of the smaller network.
        options: Options of the larger one.

    Raises:
        InvalidValueError: The weights are not those of a network with fewer blocks.
    """
    network = Compact(**options)
    own = network.state_dict()
    added = own.keys() - weights.keys()
    wrong = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    if wrong or not all(".conv1." in name or ".conv2." in name or ".film." in name for name in added):
        raise InvalidValueError(f"{min(wrong or added)} is not of a network that can grow to {dict(options)}")
    network.load_state_dict({**own, **weights})
    for name in added:
        if ".conv2." in name:
            network.get_parameter(name).zero_()
    return network
