"""Pictures that are in a training set and in a test set: found by content, also after re-encoding or scaling.

Two searches. *Exact*: files of equal size are hashed (SHA-256), so that of a hundred thousand files only a few are
read. *Look-alike*: the clean pictures are shrunk to 16x16 grey pixels, their local mean is taken away, and what is left
is correlated: detail agrees between copies of one picture, while the coarse layout (bright sky, dark ground) agrees
between many that have nothing in common. On the pictures of this project copies that were re-compressed, halved,
darkened, noised or trimmed by a few pixels reach 0.86 to 1.00, different pictures at most 0.70. Mirrored, turned or
strongly cropped copies are not found.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from moir.base.errors import PictureError
from moir.picture import read

LOOK_ALIKE = 0.85
"""Correlation of fine detail from which two pictures count as one."""
SIDE = 16
_FLAT = 2e-3  # root mean square of the detail below which it is rounding, not a picture
_AT_A_TIME = 4096


@dataclass(frozen=True)
class Collection:
    """Pictures that a set (or several that share them) holds.

    Attributes:
        label: The set's name.
        targets: The clean pictures.
        inputs: The damaged ones, compared byte for byte only.
    """

    label: str
    targets: Sequence[Path]
    inputs: Sequence[Path] = ()


@dataclass(frozen=True)
class Leak:
    """Test pictures that were found in a training set.

    Attributes:
        kind: ``exact`` (the same bytes) or ``look-alike``.
        train: Label of the training collection.
        test: Label of the test collection.
        files: (training file, test file, similarity), the most similar first; 1 for the same bytes.
    """

    kind: str
    train: str
    test: str
    files: tuple[tuple[Path, Path, float], ...] = field(repr=False)


def exact_leaks(train: Sequence[Collection], test: Sequence[Collection]) -> list[Leak]:
    """Find files with the same bytes; reads only files that have the size of one on the other side."""
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for collection in train:
        for path in (*collection.targets, *collection.inputs):
            by_size[_size(path)].append((collection.label, path))
    by_size.pop(0, None)
    digests: dict[Path, str] = {}

    def digest(path: Path) -> str:
        if path not in digests:
            digests[path] = _sha256(path)
        return digests[path]

    leaks = []
    for collection in test:
        found: dict[str, list[tuple[Path, Path, float]]] = defaultdict(list)
        for path in (*collection.targets, *collection.inputs):
            for label, other in by_size.get(_size(path), ()):
                if digest(other) == digest(path) != "":
                    found[label].append((other, path, 1.0))
        leaks += [Leak("exact", label, collection.label, tuple(files)) for label, files in found.items()]
    return leaks


def look_alikes(
    train: Sequence[Collection],
    test: Sequence[Collection],
    *,
    limit: int | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Leak], list[str]]:
    """Find clean pictures that look the same, the exact copies among them.

    Args:
        train: Training collections.
        test: Test collections.
        limit: Of larger collections only so many pictures, evenly spread, are decoded; None: all.
        on_step: Told how many pictures of how many were decoded.

    Returns:
        The leaks, and what was left out, in words.
    """
    notes = []
    chosen: list[tuple[Collection, list[Path]]] = []
    for collection in (*train, *test):
        files = _spread(collection.targets, limit)
        chosen.append((collection, files))
        if len(files) < len(collection.targets):
            notes.append(
                f"{collection.label}: {len(files)} of {len(collection.targets)} pictures were compared by look, "
                "all of them by content"
            )
    total, done = sum(len(files) for _, files in chosen), 0
    details = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for _, files in chosen:
            rows = []
            for row in pool.map(_detail, files):
                rows.append(row)
                done += 1
                on_step(done, total)
            details.append(torch.stack(rows) if rows else torch.zeros(0, SIDE * SIDE))
    decoded = list(zip(chosen, details, strict=True))
    leaks = []
    for (tested, test_files), test_rows in decoded[len(train) :]:
        for (trained, train_files), train_rows in decoded[: len(train)]:
            alike = _similar(train_rows, test_rows, train_files, test_files)
            if alike:
                leaks.append(Leak("look-alike", trained.label, tested.label, tuple(alike)))
    return leaks, notes


def _similar(
    train: torch.Tensor, test: torch.Tensor, train_files: list[Path], test_files: list[Path]
) -> list[tuple[Path, Path, float]]:
    found = []
    for start in range(0, len(train), _AT_A_TIME):
        similarity = train[start : start + _AT_A_TIME] @ test.T
        for row, column in (similarity >= LOOK_ALIKE).nonzero().tolist():
            value = min(1.0, round(similarity[row, column].item(), 4))
            found.append((train_files[start + row], test_files[column], value))
    return sorted(found, key=lambda item: -item[2])


def _detail(path: Path) -> torch.Tensor:
    """The fine detail of a picture's thumbnail, (256,), of length 1; zeros where there is none or it is damaged."""
    try:
        grey = read(path).rgb.mean(0)[None, None]
    except PictureError:  # `moir data check --decode` tells of these
        return torch.zeros(SIDE * SIDE)
    small = F.adaptive_avg_pool2d(grey, SIDE)
    rest = small - F.avg_pool2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), 3, 1)
    rest = rest.flatten() - rest.mean()
    norm = rest.norm()
    return rest / norm if norm > _FLAT * SIDE else torch.zeros(SIDE * SIDE)


def _spread(files: Sequence[Path], limit: int | None) -> list[Path]:
    if limit is None or len(files) <= limit:
        return list(files)
    return [files[index * len(files) // limit] for index in range(limit)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
