"""What a run needs to go on after a kill, as plain tensors: weights, their moving average, the optimiser, the step."""

import shutil
from pathlib import Path

import torch
from torch import nn

from moir.base.errors import TrainingError
from moir.checkpoints import load_into, read_tensors, write_tensors

STATE = "state.safetensors"
PREVIOUS = "state_previous.safetensors"


def save_state(
    folder: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write the state atomically; the state before is kept beside it until the next one."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{name}|{key}"] = torch.as_tensor(value)
    current = folder / STATE
    if current.exists():
        shutil.copyfile(current, folder / f"{PREVIOUS}.part")
        (folder / f"{PREVIOUS}.part").replace(folder / PREVIOUS)
    write_tensors(current, tensors, {"step": step}, overwrite=True)


def load_state(folder: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore the state and return the number of steps done; 0 if there is none.

    Raises:
        TrainingError: The state belongs to another network.
    """
    if not (folder / STATE).exists():
        return 0
    tensors, facts = read_tensors(folder / STATE)

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    load_into(network, part("network."), folder / STATE)
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
