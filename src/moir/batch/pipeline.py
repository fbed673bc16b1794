"""Many pictures through one restorer: the next is decoded and the last is encoded while the network works.

Decoding, the network and encoding all leave the interpreter free, so threads are enough here. How many pictures are
under way is bounded, and so is memory, whatever the number of files.
"""

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from moir.base.errors import MoirError
from moir.batch.compare import compare_path, write_comparison
from moir.batch.inputs import Job
from moir.batch.manifest import Manifest, Record, stat_of
from moir.batch.settings import Settings
from moir.batch.store import write_output
from moir.picture import Picture, encode, read
from moir.restore import Restoration, Restorer

log = logging.getLogger(__name__)

Stat = tuple[int, int]


class Pipeline:
    """Restores the pictures it is given, one at a time, with reading and writing beside.

    Args:
        restorer: Restores.
        settings: Task, strength and comparison.
        manifest: Gets a line for every picture; None: none is kept.
        overwrite: Outputs may be replaced.
        resume: Comparisons may be replaced: a killed run may have left them without their results.
        readers: Threads that read and decode.
        writers: Threads that encode and write.
    """

    def __init__(
        self,
        restorer: Restorer,
        settings: Settings,
        *,
        manifest: Manifest | None = None,
        overwrite: bool = False,
        resume: bool = False,
        readers: int = 1,
        writers: int = 1,
    ) -> None:
        self.restorer = restorer
        self.settings = settings
        self.manifest = manifest
        self.overwrite = overwrite
        self.resume = resume
        self.readers = readers
        self.writers = writers

    def run(self, following: Callable[[], Job | None], report: Callable[[Record], None]) -> None:
        """Do jobs until there are no more.

        Args:
            following: Gives the next job, or None at the end; may block. Called from several threads, one at a time.
            report: Takes the record of a job, as soon as its file is written: ``{"input", "output", ...}`` or
                ``{"input", "error"}``. Called from several threads, one at a time.
        """
        decoded: queue.Queue[tuple[Job, Picture, Stat] | None] = queue.Queue()
        restored: queue.Queue[tuple[Job, Picture, Stat, Restoration] | None] = queue.Queue()
        # One picture in every pair of hands, and one that waits.
        slots = threading.Semaphore(self.readers + self.writers + 2)
        asking, telling = threading.Lock(), threading.Lock()
        stopped = threading.Event()
        broken: list[BaseException] = []

        def tell(record: Record) -> None:
            slots.release()
            with telling:
                report(record)

        def next_job() -> Job | None:
            slots.acquire()
            with asking:
                job = None if stopped.is_set() else following()
            if job is None:
                stopped.set()
                slots.release()  # for another reader, so that it ends too
            return job

        def reading() -> None:
            while (job := next_job()) is not None:
                try:
                    facts = stat_of(job.input) if job.input.exists() else (0, 0)
                    decoded.put((job, read(job.input), facts))
                except Exception as error:
                    tell(self._failed(job, error))
            decoded.put(None)

        def writing() -> None:
            while (item := restored.get()) is not None:
                job, before, facts, result = item
                try:
                    record = self._write(job, before, facts, result)
                except Exception as error:
                    record = self._failed(job, error)
                del item, before, result
                tell(record)

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    work()
                except BaseException as error:  # an error of the caller's functions must end the run, not hang it
                    broken.append(error)
                    stopped.set()
                    decoded.put(None)

            return run

        readers = [threading.Thread(target=guarded(reading), daemon=True) for _ in range(self.readers)]
        writers = [threading.Thread(target=guarded(writing), daemon=True) for _ in range(self.writers)]
        for thread in (*readers, *writers):
            thread.start()
        try:
            over = 0
            while over < self.readers and not broken:
                item = decoded.get()
                if item is None:
                    over += 1
                    continue
                job, picture, facts = item
                try:
                    result = self.restorer(
                        picture,
                        task=self.settings.tasks,
                        strength=self.settings.strength,
                        adapter=self.settings.adapter_of(self.restorer, job.input.name),
                    )
                except Exception as error:
                    tell(self._failed(job, error))
                else:
                    restored.put((job, picture, facts, result))
                    del result
                del item, picture
        finally:
            # Ctrl-C comes here too: what is being written is finished, so that no partial file stays.
            stopped.set()
            for _ in writers:
                restored.put(None)
            for thread in writers:
                thread.join()
        if broken:
            raise broken[0]

    def _write(self, job: Job, before: Picture, facts: Stat, result: Restoration) -> Record:
        record = result.report()
        if self.settings.compare:
            sheet = compare_path(job.output)
            write_comparison(before, result.picture, sheet, overwrite=self.overwrite or self.resume)
        data = encode(result.picture, job.output.suffix.lower())
        write_output(job, data, record, manifest=self.manifest, input_stat=facts, overwrite=self.overwrite)
        return {"input": str(job.input), "output": str(job.output), **record}

    def _failed(self, job: Job, error: Exception) -> Record:
        record = failure(job.input, error)
        if self.manifest is not None:
            self.manifest.add({**record, "output": str(job.output)})
        return record


def failure(source: Path | str, error: BaseException) -> Record:
    """The record of a picture that failed; a defect of ours or of a library must not cost the user the others."""
    if isinstance(error, MoirError):
        return {"input": str(source), "error": str(error)}
    log.debug("unexpected error", exc_info=error)
    return {"input": str(source), "error": f"unexpected {type(error).__name__}: {error}"}
