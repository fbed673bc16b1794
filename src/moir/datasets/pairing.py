"""Which target belongs to which input, by name: the rules of the published sets, as data."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

Named = tuple[str, Path]
"""A picture with the folder names that count as part of its name (the scene of GoPro), joined by ``/``; mostly ""."""


@dataclass(frozen=True)
class Pairing:
    """A rule that finds the partner of a picture.

    Both patterns are matched against the whole lower-case name without extension; the groups that took part, joined,
    are the key, and pictures with one key belong together.

    Attributes:
        text: The rule in words, for people.
        input: Pattern for inputs.
        target: Pattern for targets.
        many: Several inputs share one target.
        strict: A name that does not match its pattern is an error; otherwise (inputs and targets in one folder) it is
            not meant.
    """

    text: str
    input: str = "(.+)"
    target: str = "(.+)"
    many: bool = False
    strict: bool = True


SAME = Pairing("same name (any picture extension)")
RAIN = Pairing(
    "`rain-001.png` and `norain-001.png`, or plain numbers; leading zeros and the `x2` of the PKU archive do not count",
    r"(?:no)?rain-?0*(\d+)(?:x2)?|0*(\d+)(?:x2)?",
    r"(?:no)?rain-?0*(\d+)|0*(\d+)",
)
RAIN_IN_ONE_FOLDER = Pairing(
    "`rain-001.png` and `norain-001.png` in one folder", r"rain-?0*(\d+)", r"norain-?0*(\d+)", strict=False
)
HAZE = Pairing("the clean name is the part of the hazy name before the first `_`", r"([^_]+)(?:_.*)?", many=True)
RAIN14000 = Pairing("`901_1.jpg` to `901_14.jpg` share `901.jpg`", r"(\d+)_\d+", r"(\d+)", many=True)
LOW_NORMAL = Pairing(
    "`low00001.png` and `normal00001.png`, or plain numbers", r"(?:low)?_?0*(\d+)", r"(?:normal)?_?0*(\d+)"
)
SCALED = Pairing("`0001x4.png` or `NAME_LRBI_x4.png` belongs to `0001.png`", r"(.+?)(?:_lrbi_x[234]|x[234])?")
SCENES = Pairing("same scene folder and same name")


@dataclass
class Matching:
    """What a rule made of two lists.

    Attributes:
        pairs: (name, input, target), in the order of the inputs.
        inputs: Inputs that have no target.
        targets: Targets that have no input.
        clashes: Pictures whose key another one had before.
    """

    pairs: list[tuple[str, Path, Path]] = field(default_factory=list)
    inputs: list[Path] = field(default_factory=list)
    targets: list[Path] = field(default_factory=list)
    clashes: list[Path] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether every picture has its partner."""
        return not (self.inputs or self.targets or self.clashes)


def match(inputs: Iterable[Named], targets: Iterable[Named], rule: Pairing) -> Matching:
    """Pair inputs with targets; nothing is read but names.

    Args:
        inputs: Inputs, with the folders that belong to their names.
        targets: Targets, likewise.
        rule: How names belong together.

    Examples:
        >>> hazy, clean = [("", Path("0001_0.8_0.2.jpg")), ("", Path("0002_1.jpg"))], [("", Path("0001.png"))]
        >>> result = match(hazy, clean, HAZE)
        >>> [(name, target.name) for name, _, target in result.pairs], [p.name for p in result.inputs]
        ([('0001_0.8_0.2', '0001.png')], ['0002_1.jpg'])
    """
    result = Matching()
    by_key: dict[str, Path] = {}
    target_of, input_of = re.compile(rule.target), re.compile(rule.input)
    for scene, path in targets:
        key = _key(target_of, scene, path)
        if key is None:
            result.targets += [path] if rule.strict else []
        elif key in by_key:
            result.clashes.append(path)
        else:
            by_key[key] = path
    taken: set[str] = set()
    for scene, path in inputs:
        key = _key(input_of, scene, path)
        if key is None:
            result.inputs += [path] if rule.strict else []
        elif key not in by_key:
            result.inputs.append(path)
        elif key in taken and not rule.many:
            result.clashes.append(path)
        else:
            taken.add(key)
            result.pairs.append((f"{scene}/{path.stem}" if scene else path.stem, path, by_key[key]))
    result.targets += [path for key, path in by_key.items() if key not in taken]
    return result


def _key(pattern: re.Pattern[str], scene: str, path: Path) -> str | None:
    found = pattern.fullmatch(path.stem.lower())
    if found is None:
        return None
    return f"{scene.lower()}/{''.join(group for group in found.groups() if group)}"
