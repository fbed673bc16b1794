"""How bad is bad: for every degradation the parameter that measures its severity, and its ranges, in one place.

The ranges ``inside`` and ``outside`` are the in- and out-of-distribution ranges of the MiOIR data scripts (Kong et al.,
"Towards effective multiple-in-one image restoration"), which the UniRestorer paper follows, where these define one. The
degrees light / medium / heavy reach below the published ranges, since real photographs are often only slightly damaged.
Where nothing is published for a parameter, ``source`` says that the range is ours. The kinds that imitate photographs
(natural rain, deep snow, exposure, sensor noise, even haze) share the scale of their type; their other ranges stand
where they are drawn, are our own, and were judged by eye on real photographs.
"""

from dataclasses import dataclass

import torch

from moir.base.errors import InvalidValueError
from moir.base.names import DEGREES, check_name

Range = tuple[float, float]
LEVELS: tuple[str, ...] = (*DEGREES, "inside", "outside")


@dataclass(frozen=True)
class Severity:
    """The severity scale of one degradation type.

    Attributes:
        parameter: Name of the field of the parameters that measures severity.
        unit: Its unit, for people.
        light, medium, heavy: Ranges of the three degrees, from the mildest value to the worst. Where a smaller value is
            worse (JPEG quality) the first number of the range is the larger.
        inside, outside: Published in- and out-of-distribution ranges.
        allowed: The smallest and the largest value that can be asked for by number.
        source: Where the ranges come from.
    """

    parameter: str
    unit: str
    light: Range
    medium: Range
    heavy: Range
    inside: Range
    outside: Range
    allowed: Range
    source: str

    def range(self, level: str) -> Range:
        """The range of a degree, or of ``inside`` / ``outside``."""
        check_name(level, LEVELS, "severity")
        found: Range = getattr(self, level)
        return found


SEVERITIES: dict[str, Severity] = {
    "noise": Severity(
        "sigma", "standard deviation at mid-grey, 8-bit levels",
        light=(3, 15), medium=(15, 30), heavy=(30, 50), inside=(15, 50), outside=(50, 70), allowed=(0, 200),
        source="inside/outside: MiOIR; degrees: ours",
    ),
    "blur": Severity(
        "sigma", "standard deviation of the kernel, pixels",
        light=(0.5, 1.2), medium=(1.2, 2.0), heavy=(2.0, 3.0), inside=(1, 3), outside=(3, 5), allowed=(0.1, 20),
        source="inside/outside: MiOIR (Gaussian); degrees: ours; disc and motion kernels are matched to sigma",
    ),
    "rain": Severity(
        "amount", "streak count value of the MiOIR recipe",
        light=(10, 40), medium=(40, 70), heavy=(70, 100), inside=(50, 99), outside=(100, 149), allowed=(1, 300),
        source="inside/outside: MiOIR (the kind mioir; natural: own, judged on real photographs); degrees: ours",
    ),
    "haze": Severity(
        "beta", "scattering coefficient over depth scaled to 1",
        light=(0.5, 1.1), medium=(1.1, 1.8), heavy=(1.8, 2.5), inside=(0.5, 2.5), outside=(2.5, 3), allowed=(0.01, 10),
        source="inside/outside: MiOIR; degrees: ours",
    ),
    "snow": Severity(
        "amount", "flakes relative to heavy snowfall",
        light=(0.1, 0.35), medium=(0.35, 0.65), heavy=(0.65, 1.0), inside=(0.1, 1.0), outside=(1.0, 1.5),
        allowed=(0.01, 4), source="ours; flakes: looks like Snow100K's S, M and L; depth: judged on real photographs",
    ),
    "lowlight": Severity(
        "gamma", "darkening exponent",
        light=(1.3, 1.8), medium=(1.8, 2.4), heavy=(2.4, 3.0), inside=(1, 3), outside=(3, 4), allowed=(1, 8),
        source="inside/outside: MiOIR; degrees: ours; exposure: 1-2, 2-3, 3-4 stops, judged on real photographs",
    ),
    "jpeg": Severity(
        "quality", "libjpeg quality",
        light=(90, 50), medium=(50, 25), heavy=(25, 10), inside=(70, 30), outside=(30, 10), allowed=(1, 100),
        source="inside/outside: MiOIR; degrees: ours",
    ),
}  # fmt: skip


def draw(type_: str, level: str | float, generator: torch.Generator) -> float:
    """Draw the severity of a degradation.

    Args:
        type_: Degradation type.
        level: A degree, ``inside``, ``outside``, or the value itself.
        generator: Source of randomness (not used when ``level`` is a number).

    Raises:
        UnknownNameError: An unknown type or level.
        InvalidValueError: A number outside the allowed range.
    """
    severity = SEVERITIES[check_name(type_, SEVERITIES, "degradation type")]
    if isinstance(level, str):
        first, last = severity.range(level)
        return first + (last - first) * torch.rand((), generator=generator).item()
    return check_value(type_, level)


def check_value(type_: str, value: float) -> float:
    """Return a severity given as a number, if it is allowed.

    Raises:
        UnknownNameError: An unknown type.
        InvalidValueError: A number outside the allowed range.
    """
    severity = SEVERITIES[check_name(type_, SEVERITIES, "degradation type")]
    low, high = severity.allowed
    if not low <= value <= high:
        raise InvalidValueError(
            f"{type_} {severity.parameter} {value:g} is outside {low:g}..{high:g} ({severity.unit}); "
            f"give a number in that range, or one of {', '.join(LEVELS)}"
        )
    return float(value)


def degree_of(type_: str, value: float) -> str:
    """The degree that a severity falls into; beyond heavy counts as heavy, below light as light.

    Examples:
        >>> degree_of("noise", 25), degree_of("noise", 60), degree_of("jpeg", 80)
        ('medium', 'heavy', 'light')
    """
    severity = SEVERITIES[check_name(type_, SEVERITIES, "degradation type")]
    for degree in ("heavy", "medium"):
        first, last = severity.range(degree)
        if (value >= first) if last > first else (value <= first):
            return degree
    return "light"
