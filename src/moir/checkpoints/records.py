"""What a foreign pickle turns into: plain Python values and these records. None of them can run anything."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Name:
    """A global that a pickle names. It is never looked up: ``call`` is moir's own reading of a call to it.

    Attributes:
        path: ``module.name``, as in the file.
        call: Makes a record from the arguments; None: a type or constant that may be mentioned but not called.
    """

    path: str
    call: Callable[[tuple[Any, ...]], Any] | None = None


@dataclass(eq=False, slots=True)
class StandIn:
    """An object that is not weights (a hyper-parameter, a callback): its class's name and the data the file holds."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Storage:
    """A run of numbers that lies elsewhere in the file, under ``key``; ``kind`` is a name of ``tensors.KINDS``."""

    kind: str
    key: str
    count: int


@dataclass(eq=False, slots=True)
class TensorRecord:
    """A view of a storage: where it starts, and size and stride per dimension, all in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Latin1:
    """Bytes that an old pickle protocol holds as text. They become bytes only when they are needed."""

    text: str


@dataclass(eq=False, slots=True)
class DType:
    """A NumPy type of one number, such as ``f4``; the byte order follows in its state."""

    code: str
    order: str = "|"


@dataclass(eq=False, slots=True)
class ArrayRecord:
    """A NumPy array: its bytes, and how they are to be read."""

    dtype: DType | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: Any = b""
