"""What a network found in a picture, in numbers and in words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from moir.base.names import CLEAN, DEGREES, TYPES
from moir.networks.base import Context

SEEN = 0.5
"""Probability from which a finding is spoken of as there."""

_WORDS = {"lowlight": "darkness", "jpeg": "JPEG blocks"}


@dataclass(frozen=True)
class Finding:
    """One kind of damage that was looked for.

    Attributes:
        type: Degradation type, e.g. ``rain``.
        degree: ``light``, ``medium`` or ``heavy``: how bad it is, if it is there.
        probability: That it is there, 0..1.
    """

    type: str
    degree: str
    probability: float

    def __str__(self) -> str:
        return f"{self.degree} {_WORDS.get(self.type, self.type)}"


@dataclass(frozen=True)
class Inspection:
    """What is wrong with a picture, and who would restore it.

    Attributes:
        width, height: Of the picture, pixels.
        estimate: What was found, the most probable first; empty if the model estimates nothing.
        uncertainty: How unsure the estimate is; see :func:`uncertainty`. None if the model estimates nothing.
        model: Name of the model.
        expert: Name of the expert that would restore it.
        granularity: Its level in the tree of experts; ``all`` for one network for everything.
        seconds: Time for the estimate, without reading the file.
    """

    width: int
    height: int
    estimate: tuple[Finding, ...]
    uncertainty: float | None
    model: str
    expert: str
    granularity: str
    seconds: float

    def report(self) -> dict[str, Any]:
        """The account as plain values, for JSON."""
        return {
            "width": self.width,
            "height": self.height,
            "model": self.model,
            "expert": self.expert,
            "granularity": self.granularity,
            **estimate_report(self.estimate, self.uncertainty),
            "seconds": round(self.seconds, 4),
        }

    def sentence(self) -> str:
        """What a person wants to know.

        Examples:
            >>> rain, haze = Finding("rain", "heavy", 0.97), Finding("haze", "light", 0.3)
            >>> Inspection(8, 8, (rain, haze), 0.2, "compact", "compact", "all", 0.1).sentence()
            'The picture has heavy rain (97% sure); perhaps light haze (30%).'
        """
        if not self.estimate:
            return f"{self.model} restores without saying what it finds."
        sure = [f for f in self.estimate if f.probability >= SEEN]
        perhaps = [f for f in self.estimate if SEEN / 2 <= f.probability < SEEN]
        maybe = "perhaps " + " and ".join(f"{f} ({f.probability:.0%})" for f in perhaps) if perhaps else ""
        if not sure:
            most = self.estimate[0].probability
            return f"No damage found; {maybe}." if maybe else f"No damage found (at most {most:.0%} for any kind)."
        listed = [f"{f} ({f.probability:.0%} sure)" for f in sure]
        found = listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]
        return f"The picture has {found}" + (f"; {maybe}." if maybe else ".")


def is_left_alone(expert: str) -> bool:
    """Whether an expert, by its name, is that of clean pictures, which come back as they are.

    Examples:
        >>> is_left_alone("clean-2"), is_left_alone("noise")
        (True, False)
    """
    return re.fullmatch(rf"{CLEAN}(-\d+)?", expert) is not None


def estimate_report(estimate: Sequence[Finding], unsure: float | None) -> dict[str, Any]:
    """Estimate and uncertainty as plain values, for JSON."""
    found = [{"type": f.type, "degree": f.degree, "probability": round(f.probability, 4)} for f in estimate]
    return {"estimate": found, "uncertainty": None if unsure is None else round(unsure, 4)}


def read_estimate(context: Context) -> tuple[Finding, ...]:
    """What a network found in one picture, from its context (of batch size 1), the most probable first."""
    if "presence" not in context:
        return ()
    probabilities = torch.sigmoid(context["presence"][0].float()).tolist()
    degrees = context["degree"][0].argmax(-1).tolist()
    findings = [
        Finding(type_, DEGREES[degree], probability)
        for type_, degree, probability in zip(TYPES, cast(list[int], degrees), probabilities, strict=True)
    ]
    return tuple(sorted(findings, key=lambda finding: -finding.probability))


def uncertainty(context: Context) -> float | None:
    """How unsure a network is about one picture (a context of batch size 1); None if it does not say.

    Its own measure where it has one (UniRestorer: the mean standard deviation of its estimate). Otherwise the mean
    entropy, in bits, of the seven "is it there" questions: 0 (sure of every type) to 1 (no idea).

    Examples:
        >>> uncertainty({"presence": torch.zeros(1, 7)})
        1.0
    """
    if "uncertainty" in context:
        return float(context["uncertainty"][0])
    if "presence" not in context:
        return None
    p = torch.sigmoid(context["presence"][0].double()).clamp(1e-9, 1 - 1e-9)
    return float((-(p * p.log2() + (1 - p) * (1 - p).log2())).mean())
