"""The words of ``moir degrade --with``: which damage, how bad, of which kind."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.degrade.base import Params, choose, pick_kind
from moir.degrade.pipeline import MIXES, ORDER, degradation, sample
from moir.degrade.severity import LEVELS, draw


@dataclass(frozen=True)
class Request:
    """Damage asked for in words.

    Attributes:
        levels: Degradation type to degree, ``inside``, ``outside``, severity, or None for any degree.
        kinds: Degradation type to kind, where one was named.
    """

    levels: dict[str, str | float | None]
    kinds: dict[str, str] = field(default_factory=dict)

    def sample(self, generator: torch.Generator, *, snow_masks: str | Path | None = None) -> list[Params]:
        """Draw the parameters for one picture, in the order in which they act.

        Args:
            generator: Source of randomness.
            snow_masks: Folder of mask pictures, needed by ``snow:mask`` only.

        Raises:
            PictureNotFoundError: ``snow:mask`` was asked for without a folder that holds pictures.
        """
        anything = {"light": 1.0, "medium": 1.0, "heavy": 1.0}
        levels = {t: choose(generator, anything) if level is None else level for t, level in self.levels.items()}
        return sample(levels, generator, self.kinds, snow_masks=snow_masks)


def parse(spec: str) -> Request:
    """Read a request such as ``rain=heavy,noise=25``.

    Items are separated by commas. An item is ``TYPE``, ``TYPE=LEVEL``, ``TYPE:KIND=LEVEL``, or a named mix of the
    UniRestorer paper (``LL-H-N-R``, with or without ``=LEVEL``). LEVEL is a degree (light, medium, heavy), a range
    (inside, outside), or the severity as a number; without it every picture draws a degree. The order of the items does
    not matter: degradations act in the paper's order.

    Raises:
        InvalidValueError: An empty request, a type named twice, a kind of a mix, or a number out of range.
        UnknownNameError: An unknown type, mix, kind or level, with near misses.

    Examples:
        >>> parse("rain=heavy, noise:poisson=25").levels
        {'rain': 'heavy', 'noise': 25.0}
        >>> sorted(parse("H-N=light").levels.items())
        [('haze', 'light'), ('noise', 'light')]
    """
    levels: dict[str, str | float | None] = {}
    kinds: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in spec.split(","))):
        name, _, word = (part.strip() for part in item.partition("="))
        name, _, kind = (part.strip() for part in name.partition(":"))
        types = MIXES[name] if name in MIXES else (check_name(name, (*ORDER, *MIXES), "degradation type or mix"),)
        for type_ in types:
            if type_ in levels:
                raise InvalidValueError(f"{type_} is asked for twice in {spec!r}; name each degradation once")
            levels[type_] = _level(type_, word) if "=" in item else None
        if kind and name in MIXES:
            raise InvalidValueError(
                f"a mix has no kind ({item!r}); name its degradations one by one: {', '.join(types)}"
            )
        if kind:
            kinds[name] = pick_kind(kind, dict.fromkeys(degradation(name).kinds, 1.0), name, torch.Generator())
    if not levels:
        raise InvalidValueError(f"no degradation in {spec!r}; for example 'rain=heavy,noise=25' or 'LL-H-N-R'")
    return Request(levels, kinds)


def _level(type_: str, word: str) -> str | float:
    try:
        value = float(word)
    except ValueError:
        return check_name(word, LEVELS, f"severity of {type_} (a number, or a word)")
    return draw(type_, value, torch.Generator())  # checks the range
