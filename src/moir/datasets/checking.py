"""What is there below a data root: the whole table surveyed, pictures decoded if asked, leaks looked for."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.datasets.benchmarks import BENCHMARKS, GROUPS, benchmarks
from moir.datasets.entry import DataSet
from moir.datasets.errors import DamagedPictureError, FolderMissingError, PairSizeError
from moir.datasets.folders import Tree
from moir.datasets.leaks import Collection, Leak, exact_leaks, look_alikes
from moir.datasets.mixtures import MIXTURES
from moir.datasets.overlaps import OVERLAPS
from moir.datasets.paired_set import Pair, PairedSet
from moir.datasets.survey import Survey, survey
from moir.datasets.table import DATASETS

LeakSearch = Literal["off", "exact", "quick", "full"]
LEAK_SEARCHES: tuple[LeakSearch, ...] = ("off", "exact", "quick", "full")
QUICK_LIMIT = 500
"""Pictures per set whose looks the quick search compares."""

OnStep = Callable[[str, int, int], None]


@dataclass
class Report:
    """What the check found.

    Attributes:
        surveys: Every set that was looked for, in the order of the table.
        leaks: Test pictures found in training sets.
        notes: What was not looked at, and what is known of the sets that were found.
        needed: Names of sets that were asked for, so that missing ones are wrong.
    """

    surveys: list[Survey]
    leaks: list[Leak] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    needed: frozenset[str] = frozenset()

    @property
    def fine(self) -> bool:
        """Whether something is there, nothing of it is wrong, nothing leaked, and all that was asked for is there."""
        missing = [s for s in self.surveys if s.status == "missing"]
        wrong = [s for s in self.surveys if s.status != "missing" and not s.fine]
        absent = [s for s in missing if s.dataset.name in self.needed]
        return not (wrong or absent or self.leaks) and len(missing) < len(self.surveys)


def sets_of(names: Iterable[str]) -> list[DataSet]:
    """The sets that names stand for, each once: sets, benchmarks, groups, and mixtures as ``aio3_train``.

    Raises:
        UnknownNameError: A name is none of these; the message gives near misses.

    Examples:
        >>> [dataset.name for dataset in sets_of(["derainL_train", "cbsd68_s15", "cbsd68_s25"])]
        ['raintrainl', 'cbsd68']
    """
    mixtures = {f"{name}_train": parts for name, parts in MIXTURES.items()}
    found: dict[str, DataSet] = {}
    for name in names:
        check_name(name, {**DATASETS, **BENCHMARKS, **GROUPS, **mixtures}, "data set, benchmark, group or mixture")
        if name in mixtures:
            chosen = [part.dataset for part in mixtures[name]]
        elif name in DATASETS:
            chosen = [name]
        else:
            chosen = [benchmark.dataset.name for benchmark in benchmarks(name)]
        found |= {member: DATASETS[member] for member in chosen}
    return list(found.values())


def check(
    root: str | Path,
    *,
    need: Sequence[str] = (),
    train: Sequence[str | Path] = (),
    decode: bool = False,
    leaks: LeakSearch = "quick",
    on_step: OnStep = lambda what, done, total: None,
) -> Report:
    """Survey a data root.

    Without ``decode`` only names are read, except by the search for leaks.

    Args:
        root: The folder below which the sets lie.
        need: Names of sets, benchmarks, groups, or mixtures (``aio3_train``); only these are looked for, and missing
            ones are wrong.
        train: Further folders of training pictures (with their subfolders), searched for test pictures.
        decode: Read every picture and compare the sizes of pairs.
        leaks: ``off``; ``exact``: equal files; ``quick``: also look-alikes, among at most 500 pictures of each set;
            ``full``: among all.
        on_step: Told what is being done, and how far it is.

    Raises:
        RootMissingError: There is no such root.
        FolderMissingError: A folder of ``train`` does not exist or holds no pictures.
        UnknownNameError: A name in ``need`` is not known.
        InvalidValueError: ``leaks`` is none of the four words.
    """
    if leaks not in LEAK_SEARCHES:
        raise InvalidValueError(f"leaks={leaks!r} is not possible; give {', '.join(LEAK_SEARCHES)}")
    tree = Tree(root)
    wanted = sets_of(need) if need else list(DATASETS.values())
    report = Report([survey(dataset, tree) for dataset in wanted], needed=frozenset(s.name for s in wanted if need))
    if decode:
        _decode([s for s in report.surveys if s.there], on_step)
    known, tested = _collections(report.surveys, "train"), _collections(report.surveys, "test")
    known += [_own_folder(folder) for folder in train]
    if leaks == "off" or not (known and tested):
        return report
    report.leaks = exact_leaks(known, tested)
    if leaks != "exact":
        limit = QUICK_LIMIT if leaks == "quick" else None
        alike, report.notes = look_alikes(known, tested, limit=limit, on_step=lambda n, of: on_step("looks", n, of))
        if report.notes:
            report.notes.append("for all pictures: --leaks full")
        report.leaks += _new(alike, report.leaks)
    report.notes += _known_overlaps(report)
    return report


def _collections(surveys: list[Survey], role: str) -> list[Collection]:
    # Sets of one family share their clean pictures; they are compared once, under the family's name.
    together: dict[Path, Collection] = {}
    for found in surveys:
        if found.dataset.role != role or not found.pairs:
            continue
        targets = list(dict.fromkeys(pair[2] for pair in found.pairs))
        inputs = [pair[1] for pair in found.pairs if pair[1] is not None]
        place = targets[0].parent
        if place in together:
            before = together[place]
            family = found.dataset.family
            label = family if family and before.label.startswith(family.removesuffix("*")) else before.label
            targets = list(dict.fromkeys([*before.targets, *targets]))
            together[place] = Collection(label, targets, [*before.inputs, *inputs])
        else:
            together[place] = Collection(found.dataset.name, targets, inputs)
    return list(together.values())


def _own_folder(folder: str | Path) -> Collection:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FolderMissingError(f"training folder {path} does not exist; give a folder with pictures")
    files = [picture for below in (path, *sorted(p for p in path.rglob("*") if p.is_dir())) for picture in _in(below)]
    if not files:
        raise FolderMissingError(f"training folder {path} holds no pictures, nor do its subfolders")
    return Collection(str(folder), files)


def _in(folder: Path) -> list[Path]:
    return [path for _, path in Tree(folder).pictures(".")]


def _new(alike: list[Leak], exact: list[Leak]) -> list[Leak]:
    """Look-alikes without those that are the same files anyway."""
    known = {(train, test) for leak in exact for train, test, _ in leak.files}
    left = []
    for leak in alike:
        files = tuple(item for item in leak.files if item[:2] not in known)
        if files:
            left.append(Leak(leak.kind, leak.train, leak.test, files))
    return left


def _known_overlaps(report: Report) -> list[str]:
    there = {found.dataset.name for found in report.surveys if found.pairs}
    return [
        f"known: {overlap.train} and {', '.join(tests)}: {overlap.text}"
        for overlap in OVERLAPS
        if overlap.train in there and (tests := [name for name in overlap.test if name in there])
    ]


def _decode(surveys: list[Survey], on_step: OnStep) -> None:
    total, done = sum(found.n for found in surveys), 0
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for found in surveys:
            reader = PairedSet(found.dataset.name, (), scale=found.dataset.scale)
            files = [Pair(*pair) for pair in found.pairs]
            for problem in pool.map(lambda pair, reader=reader: _problem(reader, pair), files):
                done += 1
                on_step("decoding", done, total)
                if problem:
                    found.status = "damaged"
                    found.problems.append(problem)


def _problem(reader: PairedSet, pair: Pair) -> str | None:
    try:
        reader.load(pair)
    except (DamagedPictureError, PairSizeError) as error:
        return str(error)
    return None
