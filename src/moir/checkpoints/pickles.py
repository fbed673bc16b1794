"""Reads pickles without Python's unpickler: a small machine that knows data, and has no way to call anything.

Python's ``pickle`` imports what the file names and calls it with what the file says. This machine has the same stack
and memo, but a named global is only a :class:`~moir.checkpoints.records.Name`, and a call turns into a record or is
refused (:mod:`moir.checkpoints.allowed`). The instructions are taken apart by ``pickletools`` of the standard library.

Why not ``torch.load(weights_only=True)``: it does not read NumPy pickles, stops at every hyper-parameter class that is
not installed, calls real classes, and reads the optimiser's tensors too.

Nothing is copied out of the file more often than it is in there, so a small file cannot fill the memory.
"""

import pickletools
from collections.abc import Callable
from typing import IO, Any

from moir.base.errors import CheckpointError
from moir.checkpoints.allowed import REMEDY, filled, ordered, resolve
from moir.checkpoints.records import ArrayRecord, DType, Name, StandIn, Storage

LIMIT = 4_000_000
"""Instructions at most. The largest published file in view (18,471 tensors) has under a million."""

_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}  # fmt: skip


class Machine:
    """Reads one pickle after another from a file.

    Args:
        persistent: Turns what the file says about a storage into its record; None: there are no storages.

    Attributes:
        stand_ins: Names of the classes whose objects were replaced by stand-ins.
    """

    def __init__(self, persistent: Callable[[Any], Storage] | None = None) -> None:
        self.persistent = persistent
        self.stand_ins: set[str] = set()
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def read(self, stream: IO[bytes]) -> Any:
        """Read the pickle that starts here, and leave the stream behind it.

        Raises:
            CheckpointError: The pickle asks for something that is not data.
            Exception: Many kinds, if the file is damaged; callers turn them all into one.
        """
        self._stack, self._marks, self._memo = [], [], {}
        for number, (opcode, value, _) in enumerate(pickletools.genops(stream)):
            if number > LIMIT:
                raise CheckpointError(f"it has more than {LIMIT:,} instructions, which no checkpoint needs")
            if opcode.name == "STOP":
                break
            self._step(opcode.name, value)
        return self._stack.pop()

    def _step(self, name: str, value: Any) -> None:
        stack = self._stack
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[value] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[value])
            case "GLOBAL":
                module, _, attribute = value.partition(" ")
                stack.append(resolve(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                if type(module) is not str or type(attribute) is not str:
                    raise CheckpointError(f"it names a global in an unusual way, and was refused. {REMEDY}")
                stack.append(resolve(module, attribute))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "NEWOBJ_EX":
                named, arguments, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
                if named:
                    self._build(stack[-1], named)
            case "BUILD":
                state = stack.pop()
                self._build(stack[-1], state)
            case "BINPERSID":
                if self.persistent is None:
                    raise CheckpointError("it refers to data outside itself")
                stack.append(self.persistent(stack.pop()))
            case _ if name in _VALUES:
                stack.append(value)
            case _:
                self._arrange(name)

    def _arrange(self, name: str) -> None:
        """Instructions that only build containers and move the stack."""
        stack = self._stack
        match name:
            case "MARK":
                self._marks.append(stack)
                self._stack = []
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}[name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                if len(stack) < count:
                    raise CheckpointError("it is damaged: a value is missing")
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                self._push(tuple(self._since_mark()))
            case "LIST":
                self._push(self._since_mark())
            case "DICT":
                made: dict[Any, Any] = {}
                _set_items(made, self._since_mark())
                self._push(made)
            case "FROZENSET":
                self._push(frozenset(_key(element) for element in self._since_mark()))
            case "APPEND":
                element = stack.pop()
                _extend(stack[-1], [element])
            case "APPENDS" | "ADDITEMS":
                elements = self._since_mark()
                _extend(self._stack[-1], elements)
            case "SETITEM":
                item = stack.pop()
                key = stack.pop()
                _set_items(stack[-1], [key, item])
            case "SETITEMS":
                pairs = self._since_mark()
                _set_items(self._stack[-1], pairs)
            case "POP":
                if stack:
                    stack.pop()
                else:
                    self._since_mark()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PROTO" | "FRAME":
                pass
            case _:
                raise CheckpointError(f"it uses the pickle instruction {name}, and was refused. {REMEDY}")

    def _since_mark(self) -> list[Any]:
        """Take what was pushed since the last mark off the stack."""
        elements, self._stack = self._stack, self._marks.pop()
        return elements

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or function.call is None or type(arguments) is not tuple:
            what = function.path if isinstance(function, Name) else f"a {type(function).__name__}"
            raise CheckpointError(f"it calls {what}, which is not how weights are stored, and was refused. {REMEDY}")
        made = function.call(arguments)
        if isinstance(made, StandIn):
            self.stand_ins.add(made.name)
        return made

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, ArrayRecord):
            filled(target, state)
        elif isinstance(target, DType):
            ordered(target, state)
        elif isinstance(target, StandIn):
            target.state = state
        elif type(target) is not dict:  # a state dict has state of its own: versions of its modules, not needed here
            what = target.path if isinstance(target, Name) else f"a {type(target).__name__}"
            raise CheckpointError(f"it changes {what}, which is not how weights are stored, and was refused. {REMEDY}")


def _key(value: Any) -> Any:
    # Records are hashed by identity. Nested tuples are refused: hashing them recurses without a limit.
    if type(value) in _PLAIN_KEYS or isinstance(value, Name | StandIn):
        return value
    if type(value) is tuple and len(value) <= 16 and all(type(part) in _PLAIN_KEYS for part in value):
        return value
    raise CheckpointError(f"it uses a {type(value).__name__} as a name for something, and was refused. {REMEDY}")


def _set_items(target: Any, pairs: list[Any]) -> None:
    entries = target.entries if isinstance(target, StandIn) else target
    if type(entries) is not dict or len(pairs) % 2:
        raise CheckpointError("it is damaged: entries without a dictionary")
    for position in range(0, len(pairs), 2):
        entries[_key(pairs[position])] = pairs[position + 1]


def _extend(target: Any, elements: list[Any]) -> None:
    if isinstance(target, StandIn):
        target.elements.extend(elements)
    elif type(target) is list:
        target.extend(elements)
    elif type(target) is set:
        target.update(_key(element) for element in elements)
    else:
        raise CheckpointError("it is damaged: elements without a list")
