"""One worker of ``moir restore --ray``: a process with a restorer, somewhere in the cluster (Ray calls it an actor).

What a worker that died had finished is there and whole, so it is left alone and only recorded. What it was at is tried
again picture by picture, and given up when several have died with it.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from moir.batch.inputs import Job
from moir.batch.manifest import Manifest, Record, stat_of
from moir.batch.pipeline import Pipeline, failure
from moir.batch.remote import exists_url, is_url, read_url, write_url
from moir.batch.settings import Settings

Pair = tuple[str, str]
"""Source and target: paths or URLs."""

ATTEMPTS = 3
"""How often a picture may be in the hands of a worker that dies before it is given up."""


class Attempts:
    """Counts, on a cluster, how often something was begun: Ray itself would repeat a deadly picture for ever."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def begin(self, what: str) -> int:
        """One more; how often it was begun before."""
        before = self.counts.get(what, 0)
        self.counts[what] = before + 1
        return before

    def end(self, what: str) -> None:
        """It is over."""
        self.counts.pop(what, None)


class _Collected(Manifest):
    """Keeps the lines of a manifest for the driver, who alone writes."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), "")
        self.lines: dict[str, Record] = {}

    def add(self, record: Record) -> None:
        self.lines[record["input"]] = record


class Worker:
    """A process with a restorer, somewhere."""

    def __init__(
        self,
        settings: Settings,
        weights: dict[str, bytes] | None,
        on_gpu: bool,
        threads: int,
        overwrite: bool,
        attempts: Any,
    ) -> None:
        import torch

        if not on_gpu:
            torch.set_num_threads(threads)
        self._folder = tempfile.TemporaryDirectory(prefix="moir-")
        if weights and settings.model:
            for name, data in weights.items():
                (Path(self._folder.name) / name).write_bytes(data)
            settings = dataclasses.replace(settings, model=str(Path(self._folder.name) / Path(settings.model).name))
        self.settings = settings
        self.overwrite = overwrite
        self.restorer = settings.load("cuda" if on_gpu else settings.device or "cpu")
        self.readers = 4 if on_gpu else 1
        self.attempts = attempts

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """A block of rows with ``source`` and ``target``; the records, as JSON, in the column ``record``."""
        pairs = list(zip(map(str, batch["source"]), map(str, batch["target"]), strict=True))
        block = f"block {pairs[0][0]}"
        if self._before(block):
            # Its worker died. One by one, and counted, so that a deadly picture does not take the others with it.
            records = [record for pair in pairs for record in self._suspect(pair)]
        else:
            records = self._all(pairs)
        self._call("end", block)
        return {"record": [json.dumps({**record, "worker": os.getpid()}) for record in records]}

    def _call(self, method: str, what: str) -> Any:
        import ray

        return ray.get(getattr(self.attempts, method).remote(what))

    def _before(self, what: str) -> int:
        return int(self._call("begin", what))

    def _suspect(self, pair: Pair) -> list[Record]:
        if self._before(pair[0]) < ATTEMPTS - 1:  # the first time was within its block
            records = self._all([pair])
        else:
            why = f"{ATTEMPTS} workers died with it; it may need more memory than there is: try a smaller --tile"
            records = [{"input": pair[0], "output": pair[1], "error": why}]
        self._call("end", pair[0])
        return records

    def _all(self, pairs: list[Pair]) -> list[Record]:
        records = self._local([pair for pair in pairs if not is_url(pair[0]) and not is_url(pair[1])])
        return records + [self._distant(*pair) for pair in pairs if is_url(pair[0]) or is_url(pair[1])]

    def _local(self, pairs: list[Pair]) -> list[Record]:
        records: list[Record] = []
        book = _Collected()
        waiting = []
        for source, target in pairs:
            # Outputs were looked at before the run began: one that is there now is from a worker that died.
            if not self.overwrite and Path(target).exists():
                records.append({"input": source, "output": target, "recovered": True, **_stats(source, target)})
            else:
                waiting.append(Job(Path(source), Path(target)))
        jobs = iter(waiting)
        pipeline = Pipeline(
            self.restorer,
            self.settings,
            manifest=book,
            overwrite=self.overwrite,
            readers=self.readers,
            writers=self.readers,
        )
        finished: list[Record] = []
        pipeline.run(lambda: next(jobs, None), finished.append)
        return records + [book.lines[record["input"]] for record in finished]

    def _distant(self, source: str, target: str) -> Record:
        from moir.picture import decode, encode, read

        try:
            there = exists_url(target) if is_url(target) else Path(target).exists()
            if there and not self.overwrite:
                return {"input": source, "output": target, "recovered": True}
            picture = decode(read_url(source), name=source) if is_url(source) else read(source)
            result = self.restorer(
                picture,
                task=self.settings.tasks,
                strength=self.settings.strength,
                adapter=self.settings.adapter_of(self.restorer, Path(source).name),
            )
            if is_url(target):
                data = encode(result.picture, Path(target).suffix.lower())
                write_url(target, data, overwrite=self.overwrite)
            else:
                result.save(target, overwrite=self.overwrite)
        except Exception as error:
            return failure(source, error)
        return {"input": source, "output": target, **result.report()}


def _stats(source: str, target: str) -> Record:
    with Path(target).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"input_stat": stat_of(Path(source)), "output_stat": stat_of(Path(target)), "sha256": digest}
