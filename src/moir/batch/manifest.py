"""What a run did, one JSON object per line, so that ``kill -9`` at any moment loses nothing and repeats nothing.

A picture's line is written *before* its output gets its name, and says what that file will be: its length, its time of
change and its SHA-256. So an output without a line cannot come from a run with this manifest, and a line whose output
is missing, or is another file, counts as not done. Lines are appended in one piece (``O_APPEND``) and forced to
the disk.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moir
from moir.base import locks
from moir.base.errors import InvalidValueError
from moir.batch.inputs import Job
from moir.batch.settings import key_of

Record = dict[str, Any]

PATIENCE = 20.0
"""How long a new run waits for the last workers of a killed one, seconds."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a manifest says of one output.

    Attributes:
        key: Of the settings; see :func:`moir.batch.settings.key_of`.
        input: (bytes, time of change in ns) of the input.
        output: (bytes, time of change in ns) of the output.
        sha256: Of the output.
    """

    key: str
    input: tuple[int, int]
    output: tuple[int, int]
    sha256: str

    @classmethod
    def read(cls, line: Record) -> "Done | None":
        """What a line says of its output; None if it is a line of another kind, or not whole."""
        try:
            return cls(line["key"], tuple(line["input_stat"]), tuple(line["output_stat"]), line["sha256"])
        except (KeyError, TypeError):
            return None


class Manifest:
    """Appends to a manifest.

    Args:
        path: The file; its folder is made if it is missing.
        key: Key of this run's settings, put into every line.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    def add(self, record: Record) -> None:
        """Append one line and wait until it is on the disk."""
        line = json.dumps({"key": self.key, **record}, ensure_ascii=False).encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line)  # one call: lines of several processes do not mix
            os.fsync(handle)
        finally:
            os.close(handle)

    def begin(self, identity: dict[str, Any]) -> None:
        """Append the line that explains the key, after a line that was cut off if need be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
        self.add({"settings": identity, "version": moir.__version__, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def lines_of(path: Path) -> Iterator[Record]:
    """The lines of a manifest; what is no JSON object (a line that was cut off) is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def read_done(path: Path) -> dict[str, Done]:
    """The outputs that a manifest speaks of; the last line of each counts."""
    done: dict[str, Done] = {}
    for line in lines_of(path):
        if (found := Done.read(line)) is not None and isinstance(line.get("output"), str):
            done[line["output"]] = found
    return done


def recorded(manifest: Manifest, job: Job) -> Record | None:
    """The record of a job whose output lies there as the manifest says, made with its settings; None if it does not."""
    about = [line for line in lines_of(manifest.path) if line.get("output") == str(job.output)]
    made = [(line, done) for line in about if (done := Done.read(line)) is not None and done.key == manifest.key]
    if not made:
        return None
    line, done = made[-1]
    if not (is_recorded(job.output, done) and is_from(job.input, done)):
        return None
    return {name: value for name, value in line.items() if name not in _FACTS}


_FACTS = ("key", "input_stat", "output_stat", "sha256")
"""What a line of a manifest says beyond what is reported."""


def check_settings(path: Path, identity: dict[str, Any]) -> None:
    """Refuse to go on with other settings than those of the manifest's last run.

    Raises:
        InvalidValueError: Something that changes the results is different now; the message says what.
    """
    last = None
    for record in lines_of(path):
        last = record.get("settings", last)
    if last is None or key_of(last) == key_of(identity):
        return
    changed = [
        f"{name} was {last.get(name)!r} and is {identity.get(name)!r}"
        for name in sorted({*last, *identity})
        if last.get(name) != identity.get(name)
    ]
    raise InvalidValueError(
        f"{path} belongs to a run with other settings ({'; '.join(changed)}); give the same settings, another "
        "--output, or --overwrite to do again what was done with the old ones"
    )


def stat_of(path: Path) -> tuple[int, int]:
    """Length in bytes and time of change in ns."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def is_recorded(output: Path, done: Done) -> bool:
    """Whether the file is the one that the manifest speaks of (its content counts if only its time has changed)."""
    try:
        found = stat_of(output)
        if found == done.output:
            return True
        if found[0] != done.output[0]:
            return False
        with output.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == done.sha256
    except OSError:
        return False


def is_from(source: Path, done: Done) -> bool:
    """Whether an input is the one that the manifest speaks of."""
    try:
        return stat_of(source) == done.input
    except OSError:
        return True  # an input that was removed after it was done is no reason to fail


def held(path: Path, *, alone: bool) -> AbstractContextManager[None]:
    """Hold a manifest; see :func:`moir.base.locks.held`. Workers of a killed run finish their picture first."""
    return locks.held(path, alone=alone, patience=PATIENCE)
