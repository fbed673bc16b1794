"""Records of a foreign file become tensors, with every size checked against what the file holds."""

import math
from collections.abc import Callable

import torch

from moir.base.errors import CheckpointError
from moir.checkpoints.records import ArrayRecord, Latin1, Storage, TensorRecord

KINDS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
WIDTHS: dict[str, int] = {kind: dtype.itemsize for kind, dtype in KINDS.items()}
"""Bytes per number."""

NUMPY_KINDS: dict[str, str] = {
    "f4": "float32",
    "f8": "float64",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
    "b1": "bool",
}


class TensorMaker:
    """Makes tensors of records.

    Args:
        data: Gives the bytes of a storage.
        budget: Bytes that all of them may have together; a file cannot hold more than its own length.
    """

    def __init__(self, data: Callable[[Storage], bytes], budget: int) -> None:
        self._data = data
        self._budget = budget
        self._storages: dict[tuple[str, str], torch.Tensor] = {}
        self._arrays: dict[int, torch.Tensor] = {}

    def __call__(self, record: TensorRecord | ArrayRecord) -> torch.Tensor:
        """Make the tensor; views of one storage share their memory.

        Raises:
            CheckpointError: The record states what the file does not hold, or numbers of an unknown kind.
        """
        if isinstance(record, TensorRecord):
            return self._view(record)
        if id(record) not in self._arrays:
            self._arrays[id(record)] = self._array(record)
        return self._arrays[id(record)]

    def _view(self, record: TensorRecord) -> torch.Tensor:
        storage, size, stride = record.storage, record.size, record.stride
        key = (storage.key, storage.kind)
        if key not in self._storages:
            self._storages[key] = self._numbers(self._data(storage), storage.kind)
        numbers = self._storages[key]
        count = math.prod(size)
        last = record.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count > numbers.numel() or (count and last >= numbers.numel()):
            raise CheckpointError(f"a tensor of size {size} lies outside its data: it is damaged or was tampered with")
        return numbers.as_strided(size, stride, record.offset) if count else numbers.new_empty(size)

    def _array(self, record: ArrayRecord) -> torch.Tensor:
        dtype, shape = record.dtype, record.shape
        if dtype is None:
            raise CheckpointError("it is damaged: an array without data")
        kind = NUMPY_KINDS.get(dtype.code)
        if kind is None or dtype.order not in ("<", "|", "="):
            raise CheckpointError(f"it holds an array of type {(dtype.order + dtype.code)[:20]!r}, which is not read")
        data: bytes | bytearray | str | Latin1 = record.data
        if isinstance(data, Latin1):
            data = data.text
        raw = data.encode("latin-1") if isinstance(data, str) else data
        if len(raw) != math.prod(shape) * WIDTHS[kind]:
            raise CheckpointError(f"it is damaged: an array of shape {shape} has {len(raw):,} bytes")
        numbers = self._numbers(raw, kind)
        if record.fortran:
            return numbers.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()
        return numbers.reshape(shape)

    def _numbers(self, raw: bytes | bytearray, kind: str) -> torch.Tensor:
        self._budget -= len(raw)
        if self._budget < 0:
            raise CheckpointError("it states more data than it has: it was tampered with")
        # A bytearray of our own: torch wants memory that may be written to.
        return torch.frombuffer(bytearray(raw), dtype=KINDS[kind]) if raw else torch.empty(0, dtype=KINDS[kind])
