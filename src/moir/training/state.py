"""What a run needs to go on after a kill, as plain tensors: weights, their moving average, the optimiser, the step.

A state may be kept in pieces below a size, for hosts that take no larger files. ``state.safetensors`` is the first of
them, names the others and is written last; so it never names what is not whole.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from moir.base.errors import CheckpointError, TrainingError
from moir.base.locks import held
from moir.checkpoints import load_into, read_tensors, write_tensors

STATE = "state.safetensors"
PREVIOUS = "state_previous.safetensors"

_HEADER = 200
"""Bytes of a file's header that a tensor takes at most, with a name of usual length."""


def alone_in(folder: str | Path) -> AbstractContextManager[None]:
    """Keep a second run out of the folder of a run: both would write one state.

    Raises:
        OutputExistsError: Another run is at work there.
    """
    return held(Path(folder) / ".lock", alone=True, what=folder)


def save_state(
    folder: Path,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    *,
    exact: bool = True,
    megabytes: float | None = None,
) -> None:
    """Write the state atomically; the state before is kept beside it until the next one.

    Args:
        folder: Of the run.
        network, average, optimiser: What is kept.
        step: Steps done.
        exact: False: the moving average and the optimiser's moments in bf16 alone. A run goes on from the average.
        megabytes: Size that no file exceeds, 10^6 bytes, unless a single tensor does. None: one file.
    """
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()} if exact else {}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{name}|{key}"] = torch.as_tensor(value)
    if not exact:
        tensors = {k: v.bfloat16() if v.is_floating_point() and v.dim() else v for k, v in tensors.items()}
    current = folder / STATE
    if current.exists():
        shutil.copyfile(current, folder / f"{PREVIOUS}.part")
        (folder / f"{PREVIOUS}.part").replace(folder / PREVIOUS)
    first, *others = _pieces(tensors, None if megabytes is None else int(megabytes * 1e6))
    names = [f"state_{step:07d}_{number}.safetensors" for number in range(1, len(others) + 1)]
    for name, piece in zip(names, others, strict=True):
        write_tensors(folder / name, piece, overwrite=True)
    write_tensors(current, first, {"step": step, "pieces": names}, overwrite=True)
    named = {name for kept in (current, folder / PREVIOUS) if kept.exists() for name in _pieces_named(kept)}
    for stray in folder.glob("state_[0-9]*_*.safetensors"):
        if stray.name not in named:
            stray.unlink()


def load_state(folder: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore the state and return the number of steps done; 0 if there is none.

    Raises:
        TrainingError: The state belongs to another network, or a piece of it is missing.
    """
    if not (folder / STATE).exists():
        return 0
    tensors, facts = read_tensors(folder / STATE)
    for name in facts.get("pieces") or []:
        try:
            tensors |= read_tensors(folder / name)[0]
        except CheckpointError as error:
            raise TrainingError(f"{folder / STATE} is not whole without {name}; get both again ({error})") from error

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    load_into(network, part("network.") or part("average."), folder / STATE)
    load_into(average, part("average."), folder / STATE)
    moments = part("optimiser.")
    for name, parameter in network.named_parameters():
        own = {key.split("|")[1]: v for key, v in moments.items() if key.split("|")[0] == name}
        if own:
            # AdamW keeps its step count on the CPU and the moments beside the parameter.
            optimiser.state[parameter] = {
                k: v.clone() if k == "step" else v.to(parameter.device, parameter.dtype) for k, v in own.items()
            }
    step = facts.get("step")
    if not isinstance(step, int):
        raise TrainingError(f"{folder / STATE} does not say which step it was saved at; remove it to start anew")
    return step


def _pieces(tensors: Mapping[str, torch.Tensor], limit: int | None) -> Iterator[dict[str, torch.Tensor]]:
    """Divide tensors, in their order, so that each piece takes no more bytes than that; at least one piece."""
    piece: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        own = tensor.numel() * tensor.element_size() + _HEADER
        if limit is not None and piece and size + own > limit:
            yield piece
            piece, size = {}, 0
        piece[name] = tensor
        size += own
    yield piece


def _pieces_named(state: Path) -> list[str]:
    with safe_open(state, framework="pt") as opened:
        names: list[str] = json.loads((opened.metadata() or {}).get("pieces", "[]"))
    return names
