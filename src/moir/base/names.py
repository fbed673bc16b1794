"""The fixed vocabulary of moir: degradation types, degrees and tasks, and how a wrong name is answered."""

import difflib
from collections.abc import Iterable

from moir.base.errors import UnknownNameError

CLEAN = "clean"
TYPES: tuple[str, ...] = ("noise", "rain", "haze", "snow", "blur", "lowlight", "jpeg")
"""Degradation types, in the order of every vector of type probabilities."""

DEGREES: tuple[str, ...] = ("light", "medium", "heavy")
"""Labels of severity, from the mildest."""

TASK_OF_TYPE: dict[str, str] = {
    "noise": "denoise",
    "rain": "derain",
    "haze": "dehaze",
    "snow": "desnow",
    "blur": "deblur",
    "lowlight": "lowlight",
    "jpeg": "dejpeg",
}
TYPE_OF_TASK: dict[str, str] = {task: type_ for type_, task in TASK_OF_TYPE.items()}
TASKS: tuple[str, ...] = tuple(TASK_OF_TYPE[type_] for type_ in TYPES)


def near_misses(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names closest to a wrong one, the closest first.

    Examples:
        >>> near_misses("derian", TASKS, limit=1)
        ['derain']
    """
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)


def check_name(name: str, known: Iterable[str], what: str) -> str:
    """Return ``name`` if it is known.

    Args:
        name: The name to check.
        known: The allowed names.
        what: What the name stands for, as used in the message ("degradation type").

    Raises:
        UnknownNameError: ``name`` is not in ``known``; the message gives near misses, or all names.
    """
    names = list(known)
    if name in names:
        return name
    near = near_misses(name, names)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(names)}"
    raise UnknownNameError(f"unknown {what} {name!r}; {hint}")
