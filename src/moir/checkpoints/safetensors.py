"""Reading and writing tensors, strictly and atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from moir.base.errors import CheckpointError
from moir.base.files import atomic_path


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    facts: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write tensors to a .safetensors file.

    Args:
        path: The file.
        tensors: Names to tensors; copied, made contiguous and moved to the CPU.
        facts: Anything JSON can hold, kept in the file's header.
        overwrite: Replace a file that is there.
    """
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = {key: json.dumps(value) for key, value in (facts or {}).items()}
    with atomic_path(path, overwrite=overwrite) as temporary:
        save_file(plain, temporary, metadata=header)


def read_tensors(path: str | Path, device: str = "cpu") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read all tensors and facts of a .safetensors file.

    Raises:
        CheckpointError: The file is missing, or no valid safetensors file.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"there is no weights file {file}")
    try:
        with safe_open(file, framework="pt", device=device) as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
            facts = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or not a safetensors file: {error}") from error
    return tensors, {key: _fact(value) for key, value in facts.items()}


def check_fit(network: nn.Module, tensors: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Check that a state dict has exactly the network's names and shapes.

    Args:
        network: The network, on any device (the meta device will do).
        tensors: The state dict.
        source: What messages call it.

    Raises:
        CheckpointError: Names are missing or unexpected, or shapes differ; the message lists them.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    shapes = [
        f"{name} ({tuple(tensors[name].shape)}, the network {tuple(own[name].shape)})"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [_listed(what, names) for what, names in found if names]
    if problems:
        raise CheckpointError(f"{source} does not fit {type(network).__name__}: {'; '.join(problems)}")


def load_into(network: nn.Module, tensors: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Load a state dict strictly: same names, same shapes; values are converted to the network's precision.

    Raises:
        CheckpointError: Names are missing or unexpected, or shapes differ; the message lists them.
    """
    check_fit(network, tensors, source)
    network.load_state_dict(dict(tensors), strict=True)


def _listed(what: str, names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {what}: {', '.join(names[:limit])}{more}"


def _fact(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
