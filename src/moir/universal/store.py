"""A checkpoint that stays on disk: names and shapes at once, numbers when they are asked for."""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from moir.base.errors import CheckpointError
from moir.checkpoints.containers import opened
from moir.checkpoints.foreign import collect_weights, without_prefix
from moir.checkpoints.records import ArrayRecord, TensorRecord
from moir.checkpoints.tensors import TensorMaker


class TensorStore(Protocol):
    """Where tensors come from."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names, without the training program's prefix, to shapes."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the header says besides; empty for other programs' checkpoints."""

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """These tensors, on the CPU; floating point ones in float32.

        Raises:
            CheckpointError: The file is damaged, or gone.
        """


class SafetensorsStore:
    """A .safetensors file, mapped into memory: what nobody reads is never loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="pt", device="cpu")
            names = list(self._file.keys())
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in names}
            self.facts = {key: _value(text) for key, text in (self._file.metadata() or {}).items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """See :class:`TensorStore`."""
        try:
            return {name: _float32(self._file.get_tensor(name)) for name in names}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} cannot be read any more: {error}") from error


class ForeignStore:
    """Another program's checkpoint, read by moir's own reader; each tensor's bytes when it is asked for.

    The file stays open as long as the store lives. Nothing in it is executed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: Mapping[str, Any] = {}
        self._open = ExitStack()
        try:
            self._checkpoint = self._open.enter_context(opened(path))
            # Records instead of tensors: where each lies in the file, and nothing of it yet.
            found: Any = without_prefix(collect_weights(self._checkpoint.content, _as_it_is))  # type: ignore[arg-type]
        except CheckpointError as error:
            raise CheckpointError(f"{path} cannot be loaded: {error}") from error
        except Exception as error:  # a damaged file can fail anywhere; whatever it does, it is the file
            raise CheckpointError(f"{path} is damaged, or not a checkpoint: {type(error).__name__}") from error
        self._records: dict[str, TensorRecord | ArrayRecord] = found.tensors
        self.shapes = {
            name: tuple(record.size if isinstance(record, TensorRecord) else record.shape)
            for name, record in self._records.items()
        }

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """See :class:`TensorStore`."""
        make = TensorMaker(self._checkpoint.data, self.path.stat().st_size)  # one per call: it keeps what it made
        try:
            return {name: _float32(make(self._records[name])) for name in names}
        except CheckpointError as error:
            raise CheckpointError(f"{self.path} cannot be loaded: {error}") from error
        except Exception as error:
            raise CheckpointError(f"{self.path} is damaged: {type(error).__name__}") from error


def open_store(path: str | Path) -> TensorStore:
    """Open a checkpoint without loading it.

    Args:
        path: A .safetensors file, or another program's checkpoint (.pth, .pt, .ckpt, .pkl).

    Raises:
        CheckpointError: The file is missing, unsafe or damaged.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f"there is no weights file {file}")
    return SafetensorsStore(file) if file.suffix == ".safetensors" else ForeignStore(file)


def facts_text(value: Any) -> str:
    """A value as a file's header holds it."""
    return json.dumps(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _as_it_is(record: Any) -> Any:
    return record


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
