"""Experts that stay in the checkpoint until a picture needs them.

The published pool has 31 networks (3.5 GB); a picture needs one. The pool recognises each expert by the names and
shapes of its tensors, loads it when it is called, and keeps the ones used last.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from moir.base.errors import CheckpointError, InvalidValueError
from moir.checkpoints.architectures import Detected, detect
from moir.checkpoints.safetensors import check_fit
from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork
from moir.universal.store import TensorStore

log = logging.getLogger(__name__)


class ExpertPool:
    """Experts of a checkpoint, loaded when they are needed.

    Args:
        store: The checkpoint.
        prefixes: Of each expert's names, in the order of the experts' numbers.
        resident: Experts that are kept in memory at most; the one used longest ago goes first.

    Attributes:
        found: What each expert was recognised as.
        loads: Experts loaded so far, for the curious and for tests.

    Raises:
        CheckpointError: An expert is of no network that is recognised.
        InvalidValueError: ``resident`` below 1.
    """

    def __init__(self, store: TensorStore, prefixes: Sequence[str], resident: int = 1) -> None:
        if resident < 1:
            raise InvalidValueError(f"resident={resident}: at least one expert must be in memory to run")
        self.store, self.prefixes, self.resident = store, tuple(prefixes), resident
        self.loads = 0
        self.found: list[Detected] = []
        self._names: list[dict[str, str]] = []
        self._loaded: OrderedDict[int, RestorationNetwork] = OrderedDict()
        self._lock = threading.Lock()
        for prefix in self.prefixes:
            names = {name.removeprefix(prefix): name for name in store.shapes if name.startswith(prefix)}
            try:
                self.found.append(detect({short: store.shapes[name] for short, name in names.items()}))
            except CheckpointError as error:
                raise CheckpointError(f"{store.path}: the expert {prefix.rstrip('.')}: {error}") from error
            self._names.append(names)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExpertPool":
        return self  # nothing in it changes but what is in memory

    @property
    def in_memory(self) -> list[int]:
        """Numbers of the experts in memory, the one used last at the end."""
        return list(self._loaded)

    def get(self, number: int, device: torch.device) -> RestorationNetwork:
        """An expert, frozen, in evaluation mode, on the device.

        Raises:
            CheckpointError: Its tensors do not fit the network they were recognised as.
        """
        with self._lock:
            expert = self._loaded.pop(number, None)
            if expert is None:
                while len(self._loaded) >= self.resident:  # first out, then in: never more than the bound
                    self._loaded.popitem(last=False)
                expert = self._load(number)
            self._loaded[number] = expert.to(device)
            return expert

    def tensors(self, number: int) -> dict[str, torch.Tensor]:
        """An expert's state dict, as the checkpoint has it."""
        read = self.store.read(self._names[number].values())
        return {short: read[name] for short, name in self._names[number].items()}

    def _load(self, number: int) -> RestorationNetwork:
        found, tensors = self.found[number], self.tensors(number)
        with torch.device("meta"):
            expert = create_model(found.model, **found.options)
        source = f"{self.store.path}, expert {self.prefixes[number].rstrip('.')}"
        check_fit(expert, tensors, source)
        expert.load_state_dict(tensors, assign=True)  # takes the mapped tensors themselves: no copy
        if any(t.is_meta for t in (*expert.parameters(), *expert.buffers())):
            # It has numbers that its state dict has not, which it must compute itself.
            expert = create_model(found.model, **found.options)
            expert.load_state_dict(tensors)
        self.loads += 1
        log.info("loaded expert %d (%s)", number, found.model)
        return expert.eval().requires_grad_(False)


class LazyExpert(nn.Module):
    """Stands for an expert of a pool, and has no weights of its own in memory.

    Args:
        pool: Where the expert comes from.
        number: Its number.
    """

    def __init__(self, pool: ExpertPool, number: int) -> None:
        super().__init__()
        self.pool, self.number = pool, number

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`moir.networks.base.RestorationNetwork.analyse`."""
        return self.pool.get(self.number, x.device).analyse(x)

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`moir.networks.base.RestorationNetwork.forward`."""
        restored: torch.Tensor = self.pool.get(self.number, x.device)(x, context)
        return restored

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # So that a state dict is complete, wherever the numbers are.
        destination.update({prefix + name: value for name, value in self.pool.tensors(self.number).items()})
