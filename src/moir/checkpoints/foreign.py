"""Reads the state dict of a checkpoint that another program wrote, whatever it is wrapped in."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from moir.base.errors import CheckpointError
from moir.checkpoints.containers import opened
from moir.checkpoints.records import ArrayRecord, StandIn, TensorRecord
from moir.checkpoints.safetensors import read_tensors
from moir.checkpoints.tensors import TensorMaker

WRAPPERS = ("state_dict", "params_ema", "params", "model", "model_state_dict", "net")
"""Keys under which training programs keep the weights, the ones to prefer first (averaged before plain)."""

PREFIXES = ("net.", "module.", "model.")
SETTINGS = ("hyper_parameters", "hparams", "opt", "args", "config")
PLAIN = (str, int, float, bool, type(None))


@dataclass
class Foreign:
    """What a foreign checkpoint holds.

    Attributes:
        tensors: Names, without the training program's prefix, to tensors on the CPU.
        notes: What was left out, removed or replaced, in words.
        settings: Hyper-parameters that the file states, as far as they are plain values. They are claims.
    """

    tensors: dict[str, torch.Tensor]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def read_foreign(path: str | Path) -> Foreign:
    """Read the weights of a foreign checkpoint. Nothing in the file is executed.

    Lightning, BasicSR and plain torch files (zip, and the form from before torch 1.6), pickles of name to NumPy array
    (Jittor) and safetensors. Objects that are not weights become inert stand-ins; functions, and classes of the
    standard library that are not plain data, are refused wherever they stand.

    Args:
        path: The file. What it is, is told by its content.

    Raises:
        CheckpointError: The file is missing, unsafe, damaged, or has no weights; the message says which.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {file}")
    try:
        if _is_safetensors(file):
            tensors, facts = read_tensors(file)
            return without_prefix(Foreign(tensors, [f"left out: {name} (in the file's header)" for name in facts]))
        with opened(file) as checkpoint:
            found = collect_weights(checkpoint.content, TensorMaker(checkpoint.data, file.stat().st_size))
            if checkpoint.stand_ins:
                shown = _some(sorted(checkpoint.stand_ins))
                found.notes.append(f"objects that are not weights were read as plain data, not made: {shown}")
            return without_prefix(found)
    except CheckpointError as error:
        raise CheckpointError(f"{file} cannot be loaded: {error}") from error
    except Exception as error:  # a damaged file can fail anywhere; whatever it does, it is the file
        raise CheckpointError(
            f"{file} is damaged, or not a checkpoint that moir knows (torch, Lightning, Jittor, safetensors): "
            f"{type(error).__name__}: {''.join(c if c.isprintable() else '?' for c in str(error)[:200])}"
        ) from error


def _is_safetensors(file: Path) -> bool:
    with file.open("rb") as opened_file:
        head = opened_file.read(9)
    return file.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{" and head[4:8] == bytes(4))


def collect_weights(content: Any, make: TensorMaker) -> Foreign:
    """Find the state dict in a file's content and make its tensors."""
    notes: list[str] = []
    settings: dict[str, Any] = {}
    state = content
    for _ in range(3):  # a wrapper may itself be wrapped
        if not isinstance(state, dict):
            break
        for key in SETTINGS:
            settings |= _plain_values(state.get(key))
        inner = next((key for key in WRAPPERS if _has_tensors(state.get(key))), None)
        if inner is None:
            break
        others = [_described(key, value) for key, value in state.items() if key != inner]
        notes.append(f"the weights are under {inner!r}" + (f"; left out: {_some(others)}" if others else ""))
        state = state[inner]
    if isinstance(state, StandIn):
        raise CheckpointError(
            f"it holds an object of class {state.name}, not its weights; "
            "save the state_dict() of the network where that class is known"
        )
    if not isinstance(state, dict) or not _has_tensors(state):
        raise CheckpointError(f"it has no weights: no tensors at the top, nor under {', '.join(WRAPPERS)}")
    tensors: dict[str, torch.Tensor] = {}
    others = []
    for key, value in state.items():
        if isinstance(key, str) and isinstance(value, TensorRecord | ArrayRecord):
            if not key.isprintable() or len(key) > 500:  # it will be shown on terminals
                raise CheckpointError(f"the name of a tensor is not a name: {key[:60]!a}")
            tensors[key] = make(value)
        else:
            others.append(_described(key, value))
    if others:
        notes.append(f"left out, no tensors: {_some(others)}")
    return Foreign(tensors, notes, settings)


def _has_tensors(value: Any) -> bool:
    """Whether a dictionary holds tensors, or holds a dictionary under a wrapper's name that does."""
    if not isinstance(value, dict):
        return False
    if any(isinstance(key, str) and isinstance(v, TensorRecord | ArrayRecord) for key, v in value.items()):
        return True
    nested = [value[key] for key in WRAPPERS if isinstance(value.get(key), dict)]
    return any(isinstance(v, TensorRecord | ArrayRecord) for inner in nested for v in inner.values())


def _plain_values(value: Any, depth: int = 0) -> dict[str, Any]:
    """Hyper-parameters that are plain values, also those one level down (``opt: Namespace(...)``)."""
    found: dict[str, Any] = {}
    for part in (value, getattr(value, "state", None), getattr(value, "entries", None)):
        if not isinstance(part, dict):
            continue
        for key, item in part.items():
            if isinstance(key, str) and _is_plain(item):
                found[key] = item
            elif depth == 0:
                found |= _plain_values(item, 1)
    return found


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return len(value) <= 16 and all(type(part) in PLAIN for part in value)
    return type(value) in PLAIN


def without_prefix(found: Foreign) -> Foreign:
    """Remove the prefixes that all names share."""
    names = list(found.tensors)
    removed = ""
    while prefix := next((p for p in PREFIXES if names and all(n.startswith(p) and n != p for n in names)), None):
        names = [name.removeprefix(prefix) for name in names]
        removed += prefix
    if not removed:
        return found
    note = f"removed from every name: {removed!r}"
    return Foreign(dict(zip(names, found.tensors.values(), strict=True)), [*found.notes, note], found.settings)


def _described(key: Any, value: Any) -> str:
    name = key if isinstance(key, str) else f"a {type(key).__name__}"
    shown = name if name.isprintable() else ascii(name)
    small = type(value) in (int, float, bool) or (type(value) is str and len(value) <= 24 and value.isprintable())
    return f"{shown[:60]} = {value}" if small and type(value) is not float else shown[:60]


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
