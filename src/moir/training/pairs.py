"""Training samples: patches of pairs on disk, from the papers' mixtures with their repeat factors or from two folders.

Targets may be larger than inputs (super-resolution); then a patch is so many pixels of the input.

Sample number i lies in epoch i // N, where N counts every pair as often as it is repeated, at its place in that epoch's
permutation, which depends on (seed, epoch) alone; everything else about the sample depends on (seed, i) alone. So, as
with :mod:`moir.training.data`, a resumed run goes on exactly where it stopped.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from moir.base.errors import TrainingError
from moir.base.names import TYPES
from moir.datasets import DATASETS, Example, FolderMissingError, PairedSet, Part, Synthesis, find, mixture, pairs
from moir.evaluation.noise import jpeg
from moir.training.data import Sample, generator_of
from moir.training.recipe import Data

MULTIPLE = 16
"""The papers crop pairs to a multiple of this before they cut patches."""

_EPOCH = 1  # second part of an epoch's random key: samples have keys of one part
_CDD11 = "cdd11_train_"
_TYPES = {"low": "lowlight", "haze": "haze", "rain": "rain", "snow": "snow"}  # words of CDD11
_TYPES |= {"raintrainl": "rain", "raintrainh": "rain", "ots": "haze", "gopro": "blur", "lolv1": "lowlight"}


@dataclass(frozen=True)
class Source:
    """Pairs, and how they are used.

    Attributes:
        pairs: The files.
        repeat: How often each comes in an epoch.
        label: What the use of experts is counted by: ``noise=25``, ``raintrainl``, ``low_haze``.
        types: Degradation types of the inputs; None: not known.
        sigma: Noise that is added to the input (to the target, where the set has no inputs), in 8-bit levels.
        quality: JPEG quality at which the input patch is stored.
    """

    pairs: PairedSet
    repeat: int
    label: str
    types: tuple[str, ...] | None
    sigma: float | None = None
    quality: int | None = None


def open_pairs(data: Data, seed: int) -> "PairPatches":
    """Find the pairs that a recipe's data section names. Nothing is decoded yet.

    Args:
        data: The section, with ``mixture`` or ``pairs``.
        seed: Seed of the run.

    Raises:
        FolderMissingError: Sets of the mixture are missing; the message lists all of them, and where to get each.
        RootMissingError, UnpairedError: See :func:`moir.datasets.find` and :func:`moir.datasets.pairs`.
    """
    if data.pairs is not None:
        own = pairs(os.path.expandvars(data.pairs.input), os.path.expandvars(data.pairs.target))
        return PairPatches([Source(own, 1, "pairs", tuple(data.pairs.types) or None)], data, seed)
    assert data.mixture is not None
    assert data.root is not None
    parts, root = mixture(data.mixture), os.path.expandvars(data.root)
    found: dict[str, PairedSet] = {}
    missing = []
    for name in dict.fromkeys(part.dataset for part in parts):
        try:
            found[name] = find(name, root)
        except FolderMissingError as error:
            missing.append(str(error))
    if missing:
        raise FolderMissingError(f"the training mixture {data.mixture} is not complete: " + "; ".join(missing))
    return PairPatches([_source(part, found[part.dataset]) for part in parts], data, seed)


def _source(part: Part, found: PairedSet) -> Source:
    made = part.synthesis
    if made is not None:
        return _synthesised(part, made, found)
    if DATASETS[part.dataset].scale != 1:
        return Source(found, part.repeat, part.dataset, ())
    words = [part.dataset]
    if part.dataset.startswith(_CDD11):
        words = part.dataset.removeprefix(_CDD11).split("_")
    elif "_train" in part.dataset:
        words = [part.dataset.split("_")[0]]
    return Source(found, part.repeat, part.dataset.removeprefix(_CDD11), tuple(_TYPES[word] for word in words))


def _synthesised(part: Part, made: Synthesis, found: PairedSet) -> Source:
    level, types = float(made.level), (made.type,)
    if made.type == "noise":
        return Source(found, part.repeat, f"noise={level:g}", types, sigma=level)
    if made.type == "jpeg":
        return Source(found, part.repeat, f"jpeg={level:g}", types, quality=int(level))
    raise TrainingError(f"{part.dataset}: {made.spec} cannot be made here; only noise and JPEG of one level can")


class PairPatches(Dataset[Sample]):
    """Endless training samples from pairs, epoch after epoch; see the module's text.

    A sample has the fields of :class:`moir.training.data.DamagedPatches`; with targets s times larger than the inputs,
    ``input`` is (3, P, P) and ``target`` (3, sP, sP). ``presence`` is -1 where nobody said what is
    wrong with the inputs, ``degree`` is always -1 (not known), ``remove`` is 0 (nothing is instructed).

    A picture with a side below the patch's is continued at the bottom and right by reflection: sets hold a few such
    pictures, and their sizes would be known only after opening every file.

    Args:
        sources: Pairs and how they are used.
        data: The section of the recipe.
        seed: Seed of the run.

    Attributes:
        groups, epoch, credits: As in :class:`moir.training.data.DamagedPatches`.
    """

    def __init__(self, sources: Sequence[Source], data: Data, seed: int) -> None:
        self.sources = tuple(sources)
        self.side = data.patch
        self.seed = seed
        self.groups = tuple(dict.fromkeys(source.label for source in sources))
        self._ends = list(accumulate(len(source.pairs) * source.repeat for source in sources))
        self.epoch: int = self._ends[-1]
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))
        sets = {source.pairs.name: source.pairs for source in sources}
        self.credits = [_credit(found) for found in sets.values()]

    def __len__(self) -> int:
        return self.epoch

    def __str__(self) -> str:
        return f"{sum(c['pictures'] for c in self.credits)} pairs, {self.epoch} samples per epoch"

    def __getitem__(self, index: int) -> Sample:
        source, number = self.place(index)
        generator = generator_of(self.seed, index)
        damaged, target = self._patch(source.pairs[number], source.pairs.scale, generator)
        if source.sigma is not None:
            damaged = add_noise(damaged, source.sigma, generator)
        if source.quality is not None:
            damaged = jpeg(damaged, source.quality, swapped=True)  # as published; see moir.evaluation.noise
        presence = torch.full((len(TYPES),), -1.0)
        if source.types is not None:
            presence = torch.tensor([float(name in source.types) for name in TYPES])
        return {
            "input": damaged,
            "target": target,
            "presence": presence,
            "degree": torch.full((len(TYPES),), -1),
            "remove": torch.zeros(len(TYPES) + 1),
            "groups": torch.tensor([float(label == source.label) for label in self.groups]),
        }

    def place(self, index: int) -> tuple[Source, int]:
        """Where sample ``index`` comes from: the source, and the number of the pair in it."""
        epoch, place = divmod(index, self.epoch)
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(self.epoch, generator=generator_of(self.seed, epoch, _EPOCH)))
        number = int(self._order[1][place])
        part = bisect_right(self._ends, number)
        source = self.sources[part]
        return source, (number - (self._ends[part - 1] if part else 0)) % len(source.pairs)

    def _patch(self, example: Example, scale: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The same random patch of input and target, flipped and turned alike: (3, P, P) and (3, sP, sP).

        Of a picture that has no input, the target's patch stands for it.
        """

        def integer(bound: int) -> int:
            return int(torch.randint(bound, (), generator=generator).item())

        source = example.target if example.input is None else example.input
        pictures = [(source, 1), (example.target, scale)]
        if scale == 1:
            pictures = [(_multiple(picture), 1) for picture, _ in pictures]
        # To reflect about the border's edge, not about its last pixel, keeps pictures of two sizes aligned.
        mode: Any = "reflect" if scale == 1 else "symmetric"
        pictures = [(_at_least(picture, self.side * s, mode), s) for picture, s in pictures]
        height, width = pictures[0][0].shape[-2:]
        top, left = integer(height - self.side + 1), integer(width - self.side + 1)
        turns, flipped = integer(4), integer(2)
        patches = []
        for picture, s in pictures:
            rows, columns = (slice(start * s, (start + self.side) * s) for start in (top, left))
            patch = torch.rot90(picture[..., rows, columns], turns, (-2, -1))
            patches.append((patch.flip(-1) if flipped else patch).contiguous())
        return patches[0], patches[1]


def add_noise(clean: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Gaussian noise as the papers make it: ``clip(x + sigma n, 0, 255)``, truncated (not rounded) to 8 bit.

    Args:
        clean: Any shape, [0, 1].
        sigma: Standard deviation in 8-bit levels.
        generator: Where the noise comes from.
    """
    noise = torch.randn(clean.shape, generator=generator)
    return ((clean * 255).round() + sigma * noise).clamp(0, 255).floor() / 255


def _multiple(pictures: torch.Tensor) -> torch.Tensor:
    """The centre whose sides are multiples of 16; shorter sides are left as they are."""
    height, width = (side // MULTIPLE * MULTIPLE or side for side in pictures.shape[-2:])
    top, left = (pictures.shape[-2] - height) // 2, (pictures.shape[-1] - width) // 2
    return pictures[..., top : top + height, left : left + width]


def _at_least(pictures: torch.Tensor, side: int, mode: Any = "reflect") -> torch.Tensor:
    below, right = (max(0, side - length) for length in pictures.shape[-2:])
    if not (below or right):
        return pictures
    # NumPy reflects as often as needed; PyTorch only once.
    around = [(0, 0)] * (pictures.dim() - 2) + [(0, below), (0, right)]
    return torch.from_numpy(np.pad(pictures.numpy(), around, mode=mode))


def _credit(found: PairedSet) -> dict[str, Any]:
    credit: dict[str, Any] = {"name": found.name, "pictures": len(found)}
    if found.dataset is not None:
        credit |= {"licence": found.dataset.source.licence, "source": found.dataset.source.get}
    return credit
