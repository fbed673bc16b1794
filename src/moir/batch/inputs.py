"""From what a user names (files, folders, globs) to pairs of input and output, and which of them are clips."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moir.base.errors import OutputConflictError, PictureNotFoundError
from moir.base.files import check_absent
from moir.picture import WRITABLE_SUFFIXES, is_picture_name

VIDEO_SUFFIXES: frozenset[str] = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts",
                                            ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv"))  # fmt: skip
"""Lower-case suffixes (with dot) of files that are taken for clips."""

WRITABLE_VIDEO_SUFFIXES: frozenset[str] = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm"))
"""Lower-case suffixes (with dot) of clips that can be written; the others become ``.mkv``, which holds any audio."""


def is_video_name(path: str | Path) -> bool:
    """Whether a file of this name is taken for a clip; the file is not looked at.

    Examples:
        >>> is_video_name("holiday.MP4"), is_video_name("holiday.jpg")
        (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Selection:
    """The files that are meant.

    Attributes:
        files: Each file, with its path relative to the folder it was found in (its bare name if it was named itself).
        skipped: Files of folders that are no pictures.
        named: Which of the files were named themselves.
    """

    files: list[tuple[Path, Path]]
    skipped: list[Path] = field(default_factory=list)
    named: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Job:
    """One picture or clip to do."""

    input: Path
    output: Path


def select_inputs(inputs: Sequence[str], *, recursive: bool = False) -> Selection:
    """Find the files that are meant.

    A folder means the files in it with a known picture extension; the others, clips too, are listed as skipped (what a
    killed run left unfinished is passed over). A file that is named is always tried, whatever its name. Names with
    ``*``, ``?`` or ``[`` that are no file are globs (``**`` too).

    Args:
        inputs: Files, folders and globs, in the user's order; a file that comes twice is taken once.
        recursive: Also the folders in folders.

    Raises:
        PictureNotFoundError: A glob that matches nothing, or nothing at all was found.
    """
    files: dict[Path, Path] = {}
    skipped: list[Path] = []
    named: set[Path] = set()
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            for found in sorted(path.rglob("*") if recursive else path.iterdir()):
                if found.name.startswith(".") and ".part." in found.name:
                    continue
                if found.is_file() and is_picture_name(found):
                    files.setdefault(found, found.relative_to(path))
                elif found.is_file():
                    skipped.append(found)
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
            if not matches:
                raise PictureNotFoundError(f"no file matches {name!r}")
            for match in map(Path, matches):
                if match.is_file():
                    files.setdefault(match, Path(match.name))
        else:
            files.setdefault(path, Path(path.name))
            named.add(path)
    if not files:
        raise PictureNotFoundError(
            f"no pictures in {', '.join(inputs)}"
            + (f" ({len(skipped)} other files)" if skipped else "")
            + ("" if recursive else "; use --recursive to look into subfolders")
        )
    return Selection(list(files.items()), skipped, frozenset(named))


def pair_outputs(
    selection: Selection,
    output: str | Path | None,
    *,
    tag: str = "restored",
    overwrite: bool = False,
    resume: bool = False,
) -> list[Job]:
    """Decide where every result goes, before any work.

    Without ``output`` the result lies beside the input, as ``NAME_restored.EXT``. One input with an ``output`` that has
    a picture extension goes to that file. Otherwise ``output`` is a folder in which relative paths and names are kept.
    An extension that cannot be written becomes ``.png`` (``.mkv`` for a clip). Results of an earlier run that lie
    beside their inputs are no inputs, unless they were named.

    Args:
        selection: The inputs.
        output: A file, a folder, or None.
        tag: What is added to the name beside the input.
        overwrite: Outputs may exist.
        resume: Outputs may exist, and are left alone.

    Raises:
        OutputConflictError: Two inputs have one output, or an output is one of the inputs.
        OutputExistsError: An output exists, and neither ``overwrite`` nor ``resume`` was asked for.
    """
    jobs = []
    single = output is not None and len(selection.files) == 1 and _names_a_file(Path(output))
    for file, relative in selection.files:
        if output is None:
            target = file.with_name(f"{file.stem}_{tag}{writable_suffix(file)}")
        elif single:
            target = Path(output).expanduser()
        else:
            target = Path(output).expanduser() / relative.with_suffix(writable_suffix(file))
        jobs.append(Job(file, target))
    if output is None:
        targets = {job.output for job in jobs}
        jobs = [job for job in jobs if job.input not in targets or job.input in selection.named]
    _check_apart(jobs)
    if not (overwrite or resume):
        for job in jobs:
            check_absent(job.output)
    return jobs


def writable_suffix(file: Path) -> str:
    """The suffix of a file's result: its own if it can be written, else ``.png``, or ``.mkv`` for a clip."""
    if is_video_name(file):
        return file.suffix if file.suffix.lower() in WRITABLE_VIDEO_SUFFIXES else ".mkv"
    return file.suffix if file.suffix.lower() in WRITABLE_SUFFIXES else ".png"


def _names_a_file(path: Path) -> bool:
    return path.suffix.lower() in WRITABLE_SUFFIXES | WRITABLE_VIDEO_SUFFIXES and not path.is_dir()


def _check_apart(jobs: list[Job]) -> None:
    taken: dict[Path, Path] = {}
    inputs = {job.input.resolve() for job in jobs}
    for job in jobs:
        target = job.output.resolve()
        if target in taken:
            raise OutputConflictError(
                f"{taken[target]} and {job.input} would both be written to {job.output}; "
                "rename one, or give each folder its own --output"
            )
        if target in inputs:
            raise OutputConflictError(f"{job.output} is one of the inputs and would be replaced; give another --output")
        taken[target] = job.input
