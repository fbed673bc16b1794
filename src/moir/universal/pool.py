"""Experts that stay on disk until a picture needs them.

The published pool has 31 networks (3.5 GB); a picture needs one. The pool knows where each expert's tensors lie and
which network they belong to, loads it when it is called, and keeps the ones used last.
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from moir.base.errors import CheckpointError, InvalidValueError
from moir.checkpoints.architectures import detect
from moir.checkpoints.safetensors import check_fit
from moir.models import create_model
from moir.networks.base import Context
from moir.universal.foreign_expert import SPANDREL, spandrel_expert
from moir.universal.store import TensorStore

log = logging.getLogger(__name__)

OWN = "own:"
"""What the model of an expert begins with that is no network of the registry: ``own:NAME``, made by a builder."""

Builders = Mapping[str, Callable[..., nn.Module]]
"""Name to a function that makes the user's own network of it, with the options that the pool's file holds."""


@dataclass(frozen=True)
class ExpertSource:
    """Where an expert lies, and which network it is.

    Attributes:
        store: The file with its tensors.
        prefix: What the names of its tensors begin with there.
        model: A name of the registry; ``spandrel``; or ``own:NAME``.
        options: The network's options.
        licence: What is known of its licence.
        fingerprint: Of its tensors (:func:`fingerprint`), checked when it is loaded; empty: not known.
    """

    store: TensorStore
    prefix: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    fingerprint: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        name = self.prefix.rstrip(".")
        return f"{self.store.path}, expert {name}" if name else str(self.store.path)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its state dict.

        Raises:
            CheckpointError: The file is damaged or gone.
        """
        names = {name.removeprefix(self.prefix): name for name in self.store.shapes if name.startswith(self.prefix)}
        read = self.store.read(names.values())
        return {short: read[name] for short, name in names.items()}

    def load(self, builders: Builders | None = None) -> nn.Module:
        """Make it: frozen, in evaluation mode, on the CPU.

        Args:
            builders: Makers of the user's own networks.

        Raises:
            CheckpointError: Its tensors are not those that were registered, or do not fit; or its network is unknown.
            MissingExtraError: It is a network of another project, and spandrel is not installed.
        """
        tensors = self.tensors()
        if self.fingerprint and fingerprint(tensors) != self.fingerprint:
            raise CheckpointError(f"{self.label} has changed since it joined the pool; add it again: moir expert add")
        if self.model == SPANDREL:
            return spandrel_expert(tensors, self.label).eval().requires_grad_(False)
        make = self._maker(builders or {})
        with torch.device("meta"):
            expert = make()
        check_fit(expert, tensors, self.label)
        expert.load_state_dict(tensors, assign=True)  # takes the mapped tensors themselves: no copy
        if any(t.is_meta for t in (*expert.parameters(), *expert.buffers())):
            # It has numbers that its state dict has not, which it must compute itself.
            expert = make()
            expert.load_state_dict(tensors)
        return expert.eval().requires_grad_(False)

    def _maker(self, builders: Builders) -> Callable[[], nn.Module]:
        if not self.model.startswith(OWN):
            return lambda: create_model(self.model, **self.options)
        name = self.model.removeprefix(OWN)
        if name not in builders:
            raise CheckpointError(
                f"{self.label} is the network {name!r} of whoever made this file, which moir does not have; open it "
                f"in Python with open_unirestorer(path, builders={{{name!r}: YOUR_CLASS}})"
            )
        return lambda: builders[name](**self.options)


def recognise(store: TensorStore, prefix: str) -> ExpertSource:
    """Tell an expert by the names and shapes of its tensors.

    Raises:
        CheckpointError: They are of no network that is recognised.
    """
    shapes = {n.removeprefix(prefix): shape for n, shape in store.shapes.items() if n.startswith(prefix)}
    try:
        found = detect(shapes)
    except CheckpointError as error:
        where = f"the expert {prefix.rstrip('.')}: " if prefix else ""
        raise CheckpointError(f"{store.path}: {where}{error}") from error
    return ExpertSource(store, prefix, found.model, found.options, found.licence)


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """The sha256 of names, shapes and numbers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class ExpertPool:
    """Experts on disk, loaded when they are needed.

    Args:
        found: Where each lies, in the order of the experts' numbers.
        resident: Experts that are kept in memory at most; the one used longest ago goes first.
        builders: Makers of the user's own networks.

    Attributes:
        found: As given.
        loads: Experts loaded so far, for the curious and for tests.

    Raises:
        InvalidValueError: ``resident`` below 1.
    """

    def __init__(self, found: Sequence[ExpertSource], resident: int = 1, builders: Builders | None = None) -> None:
        if resident < 1:
            raise InvalidValueError(f"resident={resident}: at least one expert must be in memory to run")
        self.found, self.resident, self.builders = tuple(found), resident, builders
        self.loads = 0
        self._loaded: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExpertPool":
        return self  # nothing in it changes but what is in memory

    @property
    def in_memory(self) -> list[int]:
        """Numbers of the experts in memory, the one used last at the end."""
        return list(self._loaded)

    def get(self, number: int, device: torch.device) -> Any:
        """An expert, frozen, in evaluation mode, on the device.

        Raises:
            CheckpointError, MissingExtraError: See :meth:`ExpertSource.load`.
        """
        with self._lock:
            expert = self._loaded.pop(number, None)
            if expert is None:
                while len(self._loaded) >= self.resident:  # first out, then in: never more than the bound
                    self._loaded.popitem(last=False)
                expert = self.found[number].load(self.builders)
                self.loads += 1
                log.info("loaded expert %d (%s)", number, self.found[number].model)
            self._loaded[number] = expert.to(device)
            return expert


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
        """See :meth:`moir.networks.base.RestorationNetwork.analyse`; a plain module decides nothing."""
        expert = self.pool.get(self.number, x.device)
        context: Context = expert.analyse(x) if hasattr(expert, "analyse") else {}
        return context

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`moir.networks.base.RestorationNetwork.forward`."""
        expert = self.pool.get(self.number, x.device)
        restored: torch.Tensor = expert(x, context) if hasattr(expert, "analyse") else expert(x)
        return restored

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # So that a state dict is complete, wherever the numbers are.
        tensors = self.pool.found[self.number].tensors()
        destination.update({prefix + name: value for name, value in tensors.items()})
