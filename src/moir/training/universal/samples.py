"""Damaged pictures with their labels and records, for every stage."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from moir import degrade
from moir.base.names import DEGREES, TYPES
from moir.degrade import Params, Pipeline
from moir.degrade.base import new_seed
from moir.training.data import DamagedPatches, Sample
from moir.training.recipe import Data
from moir.training.universal.recipe import Damaged
from moir.universal.clustering import Label


class Draw(Protocol):
    """What says what is done to a picture; see :class:`moir.degrade.Pipeline`."""

    def sample(self, generator: torch.Generator) -> list[Params]:
        """The records of one picture, in the order in which they act."""

    def storage(self, params: Sequence[Params], generator: torch.Generator) -> list[Params]:
        """Records that are no damage to be removed."""


class Settings:
    """One of a list of settings, each as often.

    Args:
        specs: As :func:`moir.degrade.parse` reads them, or ``clean``.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        self.requests = [None if spec == "clean" else degrade.parse(spec) for spec in specs]

    def sample(self, generator: torch.Generator) -> list[Params]:
        """See :class:`Draw`."""
        request = self.requests[int(torch.randint(len(self.requests), (), generator=generator).item())]
        return [] if request is None else request.sample(generator)

    def storage(self, params: Sequence[Params], generator: torch.Generator) -> list[Params]:
        """Nothing: the paper's pictures are no JPEG files."""
        return []


class Again(Settings):
    """The damage of a group's members, in new random fields: this is what an expert of the group is trained on.

    Args:
        members: Records of pictures, at least one.
    """

    def __init__(self, members: Sequence[Sequence[Params]]) -> None:
        super().__init__(())
        self.members = members

    def sample(self, generator: torch.Generator) -> list[Params]:
        """See :class:`Draw`."""
        records = self.members[int(torch.randint(len(self.members), (), generator=generator).item())]
        return [replace(record, seed=new_seed(generator)) for record in records]


class _Noted:
    """Draws, and remembers what was drawn last."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.last: list[Params] = []

    def sample(self, generator: torch.Generator) -> list[Params]:
        self.last = self.draw.sample(generator)
        return list(self.last)

    def storage(self, params: Sequence[Params], generator: torch.Generator) -> list[Params]:
        return self.draw.storage(params, generator)


class Patches(DamagedPatches):
    """Samples of :class:`moir.training.data.DamagedPatches`, at native resolution, damaged as ``draw`` says.

    Args:
        pictures: uint8 (3, H, W), each side at least ``patch``.
        draw: What is done to them.
        patch: Side of a sample, pixels.
        seed: Sample i depends on the seed and i alone.
    """

    def __init__(self, pictures: list[torch.Tensor], draw: Draw, patch: int, seed: int) -> None:
        super().__init__(pictures, Data(folders=["-"], patch=patch, smallest_scale=1.0, instruct=0.0), seed)
        self.noted = _Noted(draw)
        self.pipeline = self.noted  # type: ignore[assignment]

    def recorded(self, index: int) -> tuple[Sample, list[Params]]:
        """A sample, and the records of what was done to it."""
        sample = self[index]
        return sample, self.noted.last


def draw_of(data: Damaged) -> Draw:
    """What the section of a recipe says is done to pictures."""
    damage = data.damage
    if damage is None:
        return Settings(data.settings)
    return Pipeline(damage.clean, damage.single, damage.named, damage.types, damage.gate, damage.levels, damage.stored)


def label_of(params: Sequence[Params]) -> Label:
    """Types, and the degree if all types have the same one.

    Examples:
        >>> label_of(degrade.parse("rain=heavy,haze=heavy").sample(torch.Generator()))
        Label(types=('rain', 'haze'), degree='heavy')
    """
    types = {p.type for p in params}
    degrees = {degrade.degree_of(p.type, p.severity) for p in params}
    return Label(tuple(t for t in TYPES if t in types), degrees.pop() if len(degrees) == 1 else None)


def labels_of(sample: dict[str, torch.Tensor]) -> list[Label]:
    """The labels of a batch of samples."""
    found = []
    for presence, degree in zip(sample["presence"].tolist(), sample["degree"].int().tolist(), strict=True):
        there = [place for place, value in enumerate(presence) if value > 0]
        degrees = {degree[place] for place in there}
        common = DEGREES[degrees.pop()] if len(degrees) == 1 else None
        found.append(Label(tuple(TYPES[place] for place in there), common))
    return found


def records_to_json(params: Sequence[Params]) -> list[dict[str, Any]]:
    """Records as plain values."""
    return [p.to_json() for p in params]


def records_from_json(records: Sequence[dict[str, Any]]) -> list[Params]:
    """The inverse of :func:`records_to_json`."""
    return [degrade.params_from_json(record) for record in records]
