"""Sets on disk: pairs of paths, decoded when they are asked for."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from moir.base.errors import PictureError
from moir.base.names import check_name
from moir.datasets.benchmarks import BENCHMARKS, GROUPS, Benchmark, Synthesis
from moir.datasets.entry import DataSet
from moir.datasets.errors import (
    DamagedPictureError,
    DatasetError,
    DatasetWarning,
    FolderMissingError,
    PairSizeError,
    UnpairedError,
    UnpairedWarning,
    WrongCountWarning,
)
from moir.datasets.folders import Tree
from moir.datasets.pairing import SAME, Named, match
from moir.datasets.survey import how_to_get, some, survey
from moir.datasets.table import DATASETS
from moir.picture import read


class Pair(NamedTuple):
    """Two files that belong together.

    Attributes:
        name: Unique in its set; the input's name without extension (with its scene, as in ``GOPR0384_11_00/000001``).
        input: The damaged picture; None where the damage is added to the target.
        target: The clean picture.
    """

    name: str
    input: Path | None
    target: Path


class Example(NamedTuple):
    """A decoded pair: (3, H, W) float32 RGB in [0, 1]; ``input`` is None where the damage is added to the target."""

    name: str
    input: torch.Tensor | None
    target: torch.Tensor


@dataclass(frozen=True)
class PairedSet:
    """Pairs of pictures on disk, in a fixed order (by the input's path). Nothing is decoded until it is asked for.

    Attributes:
        name: Name of the benchmark or set.
        pairs: The files.
        synthesis: What the protocol adds to the inputs (or, where they are None, to the targets).
        scale: How many times larger the targets are than the inputs.
        warnings: What is not as published, though it can be used.
        dataset: The set of the table; None for folders of the user's own.
    """

    name: str
    pairs: tuple[Pair, ...]
    synthesis: Synthesis | None = None
    scale: int = 1
    warnings: tuple[DatasetWarning, ...] = ()
    dataset: DataSet | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Example]:
        return (self.load(pair) for pair in self.pairs)

    def __getitem__(self, index: int) -> Example:
        return self.load(self.pairs[index])

    def load(self, pair: Pair) -> Example:
        """Decode one pair.

        Returns:
            Input and target of one size or, where ``scale`` is not 1, the target's top left part of ``scale`` times
            the input's size.

        Raises:
            DamagedPictureError: One of them cannot be read.
            PairSizeError: Their sizes do not fit; the message names both.
        """
        target = self._read(pair.target)
        if pair.input is None:
            return Example(pair.name, None, target)
        source = self._read(pair.input)
        (height, width), (tall, wide) = source.shape[1:], target.shape[1:]
        s = self.scale
        # Shrunk pictures lose the rows and columns that do not make a whole pixel.
        if not (height * s <= tall < (height + 1) * s and width * s <= wide < (width + 1) * s):
            times = f" ({s} times larger is expected)" if s != 1 else ""
            raise PairSizeError(
                f"{self.name}: {pair.input} is {width}x{height} but its target {pair.target} is {wide}x{tall}{times}; "
                "get both from their source again, or check that they belong together"
            )
        return Example(pair.name, source, target[:, : height * s, : width * s])

    def _read(self, path: Path) -> torch.Tensor:
        try:
            return read(path).rgb
        except PictureError as error:
            raise DamagedPictureError(f"{self.name}: {error}") from error


def find(name: str, root: str | Path, *, strict: bool = True) -> PairedSet:
    """Find a benchmark or a set of the table below a data root.

    Args:
        name: A benchmark (``cbsd68_s25``, ``rain100l``) or a set (``cbsd68``, ``raintrainl``).
        root: The data root.
        strict: Pictures without a partner are an error; otherwise they are left out with a warning.

    Raises:
        RootMissingError: There is no such root.
        FolderMissingError: The set, or one of its folders, is not there; the message says where it should be and where
            to get it.
        UnpairedError: Pictures without a partner, while ``strict``.
        UnknownNameError: No such benchmark or set; the message gives near misses.
        DatasetError: ``name`` is a group of benchmarks: find its members one by one.

    Warns:
        WrongCountWarning: Another number of pairs than published.
        UnpairedWarning: Pictures were left out.
    """
    if name in GROUPS:
        raise DatasetError(f"{name!r} is a group; find its members one by one: {', '.join(GROUPS[name])}")
    check_name(name, (*BENCHMARKS, *DATASETS, *GROUPS), "benchmark or data set")
    benchmark = BENCHMARKS.get(name) or Benchmark(name, DATASETS[name], ())
    dataset = benchmark.dataset
    tree = Tree(root)
    found = survey(dataset, tree)
    if not found.there:
        why = found.problems[0] if found.problems else f"not found below {tree.root}; {how_to_get(dataset)}"
        raise FolderMissingError(f"{name}: {why}")
    notes: list[DatasetWarning] = []
    if found.status == "unpaired":
        problem = f"{name}: " + "; ".join(found.problems)
        if strict or not found.pairs:
            raise UnpairedError(f"{problem}; {how_to_get(dataset)}")
        notes.append(UnpairedWarning(problem))
    elif found.status == "wrong count":
        notes.append(WrongCountWarning(f"{name}: " + "; ".join(found.problems)))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    files = tuple(Pair(*pair) for pair in found.pairs)
    return PairedSet(name, files, benchmark.synthesis, dataset.scale, tuple(notes), dataset)


def pairs(input_dir: str | Path, target_dir: str | Path, *, strict: bool = True) -> PairedSet:
    """Pair any two folders: files of one name belong together, whatever their extension and case.

    Args:
        input_dir: Damaged pictures.
        target_dir: Clean pictures.
        strict: Pictures without a partner are an error; otherwise they are left out with a warning.

    Raises:
        FolderMissingError: One of the folders does not exist or holds no pictures.
        UnpairedError: Pictures without a partner, two with one name, or no pair at all.

    Warns:
        UnpairedWarning: Pictures were left out.
    """
    listed: list[list[Named]] = []
    for folder, what in ((input_dir, "input"), (target_dir, "target")):
        path = Path(folder).expanduser()
        pictures = Tree(path).pictures(".") if path.is_dir() else []
        if not pictures:
            state = "holds no pictures" if path.is_dir() else "does not exist"
            raise FolderMissingError(f"{what} folder {path} {state}; give a folder with pictures")
        listed.append(pictures)
    result = match(listed[0], listed[1], SAME)
    notes: list[DatasetWarning] = []
    if not result.fits:
        groups = (
            (result.inputs, f"without a target in {target_dir}"),
            (result.targets, f"without an input in {input_dir}"),
            (result.clashes, "with the name of another one, but for the extension"),
        )
        problem = "; ".join(f"{len(paths)} {what}: {some(paths, 20)}" for paths, what in groups if paths)
        if strict or not result.pairs:
            raise UnpairedError(f"{problem}; pictures of one name belong together, rename or remove these")
        notes.append(UnpairedWarning(f"left out: {problem}"))
        warnings.warn(notes[0], stacklevel=2)
    return PairedSet("pairs", tuple(Pair(*pair) for pair in result.pairs), warnings=tuple(notes))
