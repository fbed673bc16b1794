"""Which globals a foreign pickle may name, and what each of them means here.

Three kinds, decided by the name alone, the same on every machine:

- Names in ``MEANINGS`` and ``TYPES``: what published weights are made of. moir reads them itself.
- Classes (by their spelling) of other people's packages and of torch's modules and optimisers: hyper-parameters,
  callbacks and the like that lie beside the weights. They become :class:`~moir.checkpoints.records.StandIn`, which
  hold what the file says about them and nothing else.
- Everything else, above all functions and the standard library, is refused.

No name is ever imported or looked up, so even a name that slipped through the last rule could not run.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

from moir.base.errors import CheckpointError
from moir.checkpoints.records import ArrayRecord, DType, Latin1, Name, StandIn, Storage, TensorRecord

REMEDY = (
    "Nothing of the file was run. If you trust it, open it where it was made and save only its weights there: "
    "torch.save(model.state_dict(), 'weights.pth')"
)

_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "__builtins__": "builtins"}
_IDENTIFIERS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_CLASS = re.compile(r"_*[A-Z]\w*(\._*[A-Z]\w*)*", re.ASCII)
_TORCH_CLASSES = ("torch.nn.", "torch.optim.")
_NO_STAND_INS = frozenset(sys.stdlib_module_names) | {"torch", "numpy", "nt"}


def resolve(module: str, name: str) -> Name:
    """What a global means.

    Args:
        module: As in the file.
        name: As in the file, dotted if it is nested.

    Raises:
        CheckpointError: It is refused; the message names it and says what to do.

    Examples:
        >>> resolve("argparse", "Namespace").call(()).name
        'argparse.Namespace'
        >>> resolve("os", "system")
        Traceback (most recent call last):
        moir.base.errors.CheckpointError: it asks for os.system, which is code and not weights, ...
    """
    path = f"{_OLD_MODULES.get(module, module)}.{name}"
    meaning = MEANINGS.get(path.replace("numpy._core.", "numpy.core."))
    if meaning is not None:
        return Name(path, meaning)
    if path in TYPES:
        return Name(path)
    if path in _STAND_INS or _may_stand_in(path, name):
        return Name(path, lambda arguments: StandIn(path, arguments))
    if path.startswith("torch._utils._rebuild"):
        raise CheckpointError(f"it holds a kind of tensor that moir does not read ({path}). {REMEDY}")
    shown = path if len(path) <= 100 and path.isprintable() else ascii(path[:100])
    raise CheckpointError(f"it asks for {shown}, which is code and not weights, and was refused. {REMEDY}")


def _may_stand_in(path: str, name: str) -> bool:
    if len(path) > 300 or not _IDENTIFIERS.fullmatch(path) or not _CLASS.fullmatch(name):
        return False
    return path.startswith(_TORCH_CLASSES) or path.split(".")[0] not in _NO_STAND_INS


def _is_size(value: Any) -> bool:
    return type(value) is tuple and len(value) <= 32 and all(type(n) is int and n >= 0 for n in value)


def _wrong(what: str) -> CheckpointError:
    return CheckpointError(f"it is damaged or was tampered with: {what}. {REMEDY}")


def _tensor(arguments: tuple[Any, ...]) -> TensorRecord:
    # (storage, offset, size, stride[, requires_grad, hooks[, metadata]]): hooks and metadata mean nothing here.
    if not 4 <= len(arguments) <= 7:
        raise _wrong(f"a tensor made from {len(arguments)} values")
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise _wrong("a tensor that does not lie in the file's data")
    if not _is_size(size) or not _is_size(stride) or len(size) != len(stride):
        raise _wrong("a tensor whose size and stride are not numbers")  # shown, they could be made endless
    return TensorRecord(storage, offset, size, stride)


def _parameter(arguments: tuple[Any, ...]) -> TensorRecord:
    if not arguments or not isinstance(arguments[0], TensorRecord):
        raise _wrong("a parameter that is no tensor")
    return arguments[0]


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    if len(arguments) != 1 or not _is_size(arguments[0]):
        raise _wrong("a size that is no tuple of numbers")
    size: tuple[int, ...] = arguments[0]
    return size


def _empty_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise _wrong("an ordered dictionary that is filled in an unusual way")
    return {}


def _text_as_bytes(arguments: tuple[Any, ...]) -> Latin1:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        raise _wrong("bytes in an unusual spelling")
    return Latin1(arguments[0])


def _empty_bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:
        raise _wrong("bytes in an unusual spelling")
    return b""


def _dtype(arguments: tuple[Any, ...]) -> DType:
    if not arguments or type(arguments[0]) is not str:
        raise _wrong("an array of unknown type")
    return DType(arguments[0])


def _array(arguments: tuple[Any, ...]) -> ArrayRecord:
    kind = arguments[0] if arguments else None
    if not isinstance(kind, Name) or kind.path != "numpy.ndarray":
        raise _wrong("an array that is no numpy.ndarray")
    return ArrayRecord()


def _array_from_buffer(arguments: tuple[Any, ...]) -> ArrayRecord:
    if len(arguments) != 4:
        raise _wrong(f"an array made from {len(arguments)} values")
    data, dtype, shape, order = arguments
    return filled(ArrayRecord(), (1, shape, dtype, order == "F", data))


def _scalar(arguments: tuple[Any, ...]) -> ArrayRecord:
    if len(arguments) != 2:
        raise _wrong(f"a number made from {len(arguments)} values")
    return filled(ArrayRecord(), (1, (), arguments[0], False, arguments[1]))


def filled(array: ArrayRecord, state: Any) -> ArrayRecord:
    """Give an array the state that the file holds: (version, shape, type, column order, data).

    Raises:
        CheckpointError: It is no such state.
    """
    if type(state) is not tuple or len(state) != 5:
        raise _wrong("an array without shape, type and data")
    _, shape, dtype, fortran, data = state
    if not _is_size(shape) or not isinstance(dtype, DType) or not isinstance(data, bytes | bytearray | Latin1 | str):
        raise _wrong("an array that is not made of plain numbers")
    array.dtype, array.shape, array.fortran, array.data = dtype, shape, bool(fortran), data
    return array


def ordered(dtype: DType, state: Any) -> DType:
    """Give a NumPy type the byte order that the file states, and check that it is a single number.

    Raises:
        CheckpointError: It is no such state, or a type with fields.
    """
    if (
        type(state) is not tuple
        or len(state) < 5
        or type(state[1]) is not str
        or any(s is not None for s in state[2:5])
    ):
        raise _wrong("an array that is not made of plain numbers")
    dtype.order = state[1]
    return dtype


MEANINGS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "_codecs.encode": _text_as_bytes,
    "builtins.bytes": _empty_bytes,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
    "numpy.core.multiarray.scalar": _scalar,
}
"""Names that may be called, under NumPy 1's spelling."""

STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}

TYPES = (
    set(STORAGES)
    | {"numpy.ndarray"}
    | {f"torch.{kind}" for kind in STORAGES.values()}
    | {f"builtins.{kind}" for kind in ("bool", "dict", "float", "int", "list", "str", "tuple")}
)
"""Names that may be mentioned, but not called."""

_STAND_INS = {
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.set",
    "collections.Counter",
    "collections.defaultdict",
    "datetime.datetime",
    "datetime.timedelta",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "torch.device",
    "torch.serialization._get_layout",
}
"""Plain data of the standard library and torch that lies beside weights."""
