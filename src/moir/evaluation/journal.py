"""Scores on disk as they are made, so that an interrupted run goes on where it stopped."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moir.evaluation.records import ImageScore


class Journal:
    """Scores by key, one JSON object per line, appended and flushed one by one.

    A key stands for everything that a score depends on, so that what was made with other options, other files or
    another version is never taken for what is asked for now. A last line that was cut off is ignored, and so are
    failures: those pictures are tried again.

    Args:
        path: The file; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, ImageScore] = {}
        if path is not None and path.exists():
            for line in path.read_text(errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    self._known[record["key"]] = ImageScore(**record["score"])
                except (ValueError, KeyError, TypeError):
                    continue

    def find(self, key: str) -> ImageScore | None:
        """The score of this key; None if there is none, or it failed."""
        found = self._known.get(key)
        return found if found is not None and found.error is None else None

    def add(self, key: str, score: ImageScore, **more: Any) -> None:
        """Append a score; ``more`` is written beside it, for people."""
        self._known[key] = score
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "score": asdict(score), **more}, ensure_ascii=False)
        with self.path.open("a+b") as file:
            # After a line that was cut off the next one must begin on its own.
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode() + b"\n")


def key_of(*parts: Any) -> str:
    """A key of plain values: SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
