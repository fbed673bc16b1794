"""Writing one result with its line in the manifest, and what may be left out when a run goes on."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from moir.base.files import atomic_path
from moir.batch.inputs import Job
from moir.batch.manifest import Done, Manifest, Record, is_from, is_recorded, stat_of

_LEFTOVER = re.compile(r"^\.(?P<stem>.{1,40})\.[a-z0-9_]{8}\.part(?P<suffix>\.[A-Za-z0-9]+)$", re.DOTALL)


def write_output(
    job: Job,
    data: bytes,
    record: Record,
    *,
    manifest: Manifest | None,
    input_stat: tuple[int, int] | None,
    overwrite: bool,
) -> None:
    """Write a result; its line stands in the manifest before the file has its name.

    Args:
        job: Where to.
        data: The whole file.
        record: What is reported about it.
        manifest: None: no manifest is kept.
        input_stat: Of the input, taken before it was read.
        overwrite: Replace a file that is there.

    Raises:
        OutputExistsError: The file exists and ``overwrite`` is false.
    """
    with atomic_path(job.output, overwrite=overwrite) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if manifest is not None:
                os.fsync(file.fileno())
        if manifest is not None:
            digest = hashlib.sha256(data).hexdigest()
            commit(temporary, job, record, manifest=manifest, input_stat=input_stat, sha256=digest)


def commit(
    temporary: Path, job: Job, record: Record, *, manifest: Manifest, input_stat: tuple[int, int] | None, sha256: str
) -> None:
    """Write the line of a result that lies whole at its temporary path (renaming keeps its time of change)."""
    facts = {"input_stat": input_stat, "output_stat": stat_of(temporary), "sha256": sha256}
    manifest.add({"input": str(job.input), "output": str(job.output), **record, **facts})


def sort_out(
    jobs: Iterable[Job], done: dict[str, Done], key: str, *, overwrite: bool
) -> tuple[list[Job], list[Record]]:
    """Divide jobs into what is still to do, and records of what is not.

    A job is done if its output is the recorded file, made with these settings from this input. An output that the
    manifest does not know is left alone, as done by somebody else.

    Args:
        jobs: All jobs.
        done: From :func:`moir.batch.manifest.read_done`.
        key: Of these settings.
        overwrite: Do again what was made with other settings, from a changed input, or is unknown.
    """
    todo: list[Job] = []
    records: list[Record] = []
    for job in jobs:
        names = {"input": str(job.input), "output": str(job.output)}
        known = done.get(str(job.output))
        if not job.output.exists():
            todo.append(job)
        elif known is None:
            if overwrite:
                todo.append(job)
            else:
                records.append({**names, "skipped": True})
        elif is_recorded(job.output, known) and known.key == key and is_from(job.input, known):
            records.append({**names, "skipped": True})
        elif overwrite:
            todo.append(job)
        else:
            records.append({"input": names["input"], "error": _reason(job, known, key)})
    return todo, records


def _reason(job: Job, known: Done, key: str) -> str:
    if not is_recorded(job.output, known):
        what = "was changed after it was written"
    elif known.key != key:
        what = "was made with other settings"
    else:
        what = f"was made from another {job.input}, which has changed since"
    return f"{job.output} {what}; it was left alone (--overwrite replaces it)"


def remove_leftovers(jobs: Iterable[Job]) -> int:
    """Remove the unfinished files that a killed run left beside the outputs; returns how many."""
    wanted: dict[Path, set[tuple[str, str]]] = {}
    for job in jobs:
        wanted.setdefault(job.output.parent, set()).add((job.output.stem[:40], job.output.suffix))
    removed = 0
    for folder, names in wanted.items():
        if not folder.is_dir():
            continue
        for file in folder.iterdir():
            match = _LEFTOVER.match(file.name)
            if match and (match["stem"], match["suffix"]) in names:
                file.unlink(missing_ok=True)
                removed += 1
    return removed
