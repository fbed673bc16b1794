"""Training samples: patches of clean pictures, damaged on the fly.

Sample number i depends on (seed, i) alone: not on the number of workers, not on what came before. That makes a resumed
run continue exactly where it stopped, and several processes share one stream without talking to each other.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, Sampler, default_collate

from moir import degrade
from moir.base.errors import PictureError, TrainingError
from moir.base.names import CLEAN, DEGREES, TYPES
from moir.degrade import Params, Pipeline
from moir.picture import is_picture_name, read
from moir.training.recipe import Data

log = logging.getLogger(__name__)

Sample = dict[str, torch.Tensor]

CLEAN_PATCH, RECORDS = "clean", "records"
"""What a sample holds in place of input and target, if the device shall damage it: the patch, the records of both."""

LEAST_SCENE = 0.75
"""Least share of each side of a picture that counts as its scene (``data.scenes``)."""


def generator_of(seed: int, *key: int) -> torch.Generator:
    """A stream of random numbers of its own for every key (a sample's number, an epoch, ...) of a run."""
    # A spawn key keeps the streams of neighbouring numbers independent.
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) & (2**63 - 1))


def clean_pictures(folders: list[str]) -> list[Path]:
    """All picture files below the folders, sorted.

    Raises:
        TrainingError: A folder is not there, or there is no picture in any.
    """
    found: list[Path] = []
    for folder in folders:
        root = Path(os.path.expandvars(folder)).expanduser()
        if not root.is_dir():
            raise TrainingError(f"the folder of clean pictures {folder!r} ({root}) is not there")
        found += sorted(path for path in root.rglob("*") if path.is_file() and is_picture_name(path))
    if not found:
        raise TrainingError(f"no pictures in {', '.join(folders)}")
    return found


def load_pictures(folders: list[str], smallest: int) -> list[torch.Tensor]:
    """Decode all pictures once, as uint8 (3, H, W).

    A picture that cannot be read, or with a side below ``smallest``, is left out with a warning.

    Raises:
        TrainingError: Nothing is left.
    """
    pictures = []
    for path in clean_pictures(folders):
        try:
            rgb = read(path).rgb
        except PictureError as error:
            log.warning("left out of training: %s", error)
            continue
        if min(rgb.shape[-2:]) < smallest:
            log.warning("left out of training: %s is smaller than the patch, %d px", path, smallest)
            continue
        pictures.append((rgb * 255).round().to(torch.uint8))
    if not pictures:
        raise TrainingError(f"no usable pictures in {', '.join(folders)}")
    return pictures


class DamagedPatches(Dataset[Sample]):
    """Endless training samples; see the module's text.

    A sample holds ``input`` and ``target`` (3, P, P), ``presence`` (7,) 0 or 1, ``degree`` (7,) the index of the degree
    or -1 where the type is absent, ``remove`` (8,): which types were asked to be removed, and 1 if anything was, and
    ``groups`` (8,), 0 or 1: which of the attribute's groups it counts for. With ``data.device_degradation`` there is
    the patch and what shall be done to it in place of input and target; :func:`on_device` makes them.

    Args:
        pictures: uint8 (3, H, W), each side at least ``data.patch``.
        data: The section of the recipe.
        seed: Seed of the run.

    Attributes:
        groups: What the use of experts is counted by.
        epoch: Samples in an epoch; None: the stream has none.
        credits: For the card: the sets that were trained on, as far as they are known.
    """

    groups: tuple[str, ...] = (*TYPES, CLEAN)
    epoch: int | None = None

    def __init__(self, pictures: list[torch.Tensor], data: Data, seed: int) -> None:
        self.pictures = pictures
        self.data = data
        self.seed = seed
        damage = data.damage
        self.credits: list[dict[str, Any]] = []
        self.pipeline = Pipeline(
            damage.clean, damage.single, damage.named, damage.types, damage.gate, damage.levels, damage.stored
        )

    def _pipeline(self, index: int) -> Pipeline:
        """What damages this sample: the pipeline, in a curriculum with the degrees of its time."""
        course = self.data.curriculum
        if course is None or index >= course.samples:
            return self.pipeline
        there = index / course.samples
        names = dict.fromkeys([*course.levels, *self.pipeline.levels])
        shares = [_shares(levels) for levels in (course.levels, self.pipeline.levels)]
        levels = {n: (1 - there) * shares[0].get(n, 0.0) + there * shares[1].get(n, 0.0) for n in names}
        return replace(self.pipeline, levels=levels)

    def __getitem__(self, index: int) -> Sample:
        generator = generator_of(self.seed, index)
        clean = self._patch(generator)
        params = self._pipeline(index).sample(generator)
        remove = torch.zeros(len(TYPES) + 1)
        left: list[Params] = []
        if _uniform(generator) < self.data.instruct:
            flags = self._told() if self.data.told else self._instruction(params, generator)
            remove = torch.cat([flags, torch.ones(1)])
            left = [p for p in params if not flags[TYPES.index(p.type)]]
        stored = self.pipeline.storage(params, generator)
        # A clean picture stays as it is, faint blocks and all; from a damaged one they go with the damage.
        lists = [[*params, *stored], left if params else stored]
        presence, degree = torch.zeros(len(TYPES)), torch.full((len(TYPES),), -1)
        for p in params:
            place = TYPES.index(p.type)
            presence[place] = 1
            degree[place] = DEGREES.index(degrade.degree_of(p.type, p.severity))
        sample: dict[str, Any] = {
            "presence": presence,
            "degree": degree,
            "remove": remove,
            "groups": torch.cat([presence, (presence.sum() == 0).float()[None]]),
        }
        if self.data.device_degradation:
            return sample | {CLEAN_PATCH: clean, RECORDS: lists}
        batch = degrade.apply(clean[None].expand(2, -1, -1, -1), lists)
        return sample | {"input": degrade.quantise(batch[0]), "target": batch[1]}

    def __str__(self) -> str:
        return f"{len(self.pictures)} pictures, damaged on the fly"

    def _patch(self, generator: torch.Generator) -> torch.Tensor:
        """A random patch of a random picture at a random scale, flipped and turned; (3, P, P), [0, 1]."""
        side = self.data.patch
        picture = self.pictures[_integer(len(self.pictures), generator)]
        height, width = self._window(picture.shape[-2], picture.shape[-1], generator)
        top = _integer(picture.shape[-2] - height + 1, generator)
        left = _integer(picture.shape[-1] - width + 1, generator)
        patch = picture[:, top : top + height, left : left + width].float() / 255
        if (height, width) != (side, side):
            patch = F.interpolate(patch[None], size=(side, side), mode="bilinear", antialias=True)[0]
        patch = torch.rot90(patch, _integer(4, generator), (1, 2)) if _integer(4, generator) == 0 else patch
        return patch.flip(2).contiguous() if _integer(2, generator) else patch.contiguous()

    def _window(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int]:
        """How much of a picture a patch shows: height and width, pixels."""
        side = self.data.patch
        # Nothing is drawn where there are no scenes, so that the stream of runs without them is what it always was.
        if self.data.scenes > 0 and _uniform(generator) < self.data.scenes:
            shares = [LEAST_SCENE + (1 - LEAST_SCENE) * _uniform(generator) for _ in range(2)]
            return max(side, round(shares[0] * height)), max(side, round(shares[1] * width))
        smallest = max(self.data.smallest_scale, side / min(height, width))
        # Some patches at full resolution, the others shrunk, so that some hold a whole scene.
        scale = 1.0
        if _uniform(generator) < self.data.shrunk:
            scale = smallest + (1 - smallest) * _uniform(generator)
        window = min(round(side / scale), height, width)
        return window, window

    def _told(self) -> torch.Tensor:
        return torch.tensor([float(type_ in self.data.told) for type_ in TYPES])

    @staticmethod
    def _instruction(params: list[Params], generator: torch.Generator) -> torch.Tensor:
        """Which types to remove: some of those that are there, now and then one that is not; (7,)."""
        flags = torch.zeros(len(TYPES))
        for p in params:
            flags[TYPES.index(p.type)] = float(_uniform(generator) < 0.6)
        if flags.sum() == 0 or _uniform(generator) < 0.15:
            flags[_integer(len(TYPES), generator)] = 1
        return flags


def _integer(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator).item())


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples to a batch: tensors are stacked, parameter records stay a list."""
    records = [sample.pop(RECORDS) for sample in samples if RECORDS in sample]
    batch: dict[str, Any] = default_collate(samples)
    return batch | {RECORDS: records} if records else batch


def on_device(batch: dict[str, Any], device: torch.device) -> Sample:
    """Move a batch to the device; damage it there, if that was left to do.

    Random fields come from the device's own generator, so that the same records look the same on one kind of device.
    """
    moved: Sample = {k: v.to(device, non_blocking=True) for k, v in batch.items() if isinstance(v, torch.Tensor)}
    if RECORDS in batch:
        inputs, targets = zip(*batch[RECORDS], strict=True)
        clean = moved.pop(CLEAN_PATCH)
        damaged, kept = degrade.apply(torch.cat([clean, clean]), [*inputs, *targets]).chunk(2)
        moved["input"], moved["target"] = degrade.quantise(damaged), kept
    return moved


class Stream(Sampler[int]):
    """Sample numbers from ``start`` on, without end, every ``processes``-th batch for this process."""

    def __init__(self, start: int, batch: int, process: int = 0, processes: int = 1) -> None:
        self.start, self.batch, self.process, self.processes = start, batch, process, processes

    def __iter__(self) -> Iterator[int]:
        first = self.start
        while True:
            own = first + self.process * self.batch
            yield from range(own, own + self.batch)
            first += self.batch * self.processes
