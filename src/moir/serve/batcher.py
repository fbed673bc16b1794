"""One thread that runs what waits, equal things together.

The network uses all cores (or the GPU) for one picture, so pictures run one after another, in order of arrival; those
that share a key (operation, model, options, size) run as one batch. While a batch runs the next one gathers.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Any

log = logging.getLogger(__name__)

Stop = Callable[[], None]
"""Called between tiles; raises Abandoned when nobody waits for the result any more."""

Run = Callable[[Sequence[Any], Stop], Sequence[Any]]
"""Does several payloads of one key; returns one result for each."""


class Abandoned(Exception):  # noqa: N818 - a signal, not an error
    """Nobody waits for what is running."""


@dataclass(eq=False)
class Job:
    """One thing to do.

    Attributes:
        key: Jobs with equal keys may run together.
        run: Does it; that of the first job of a batch is called.
        payload: What ``run`` is given.
        most: How many may run together.
        result: Where the result goes; cancelling it takes the job out, and stops it if it runs alone.
    """

    key: Hashable
    run: Run
    payload: Any
    most: int = 1
    result: "Future[Any]" = field(default_factory=Future)


class Batcher:
    """Runs jobs in a thread of its own until :meth:`close`.

    Args:
        linger: Seconds that a batch which is not full waits for more, when nothing else is to be done.
        on_batch: Told the number of jobs and the seconds of every batch, for metrics.
    """

    def __init__(self, linger: float = 0.0, on_batch: Callable[[int, float], None] | None = None) -> None:
        self.linger = linger
        self._on_batch = on_batch
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.running = 0
        self._thread = threading.Thread(target=self._work, name="moir-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether jobs are taken and done."""
        return self._thread.is_alive() and not self._closing

    def submit(self, job: Job) -> "Future[Any]":
        """Queue a job.

        Raises:
            RuntimeError: The batcher is closed.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(job)
            self._changed.notify()
        return job.result

    def close(self, timeout: float | None = None) -> bool:
        """Take no more jobs, finish those that are there, and say whether that was done in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while jobs := self._next():
            self.running = len(jobs)
            began = time.perf_counter()
            settled = self._do(jobs)
            self.running = 0
            if self._on_batch is not None:
                self._on_batch(len(jobs), time.perf_counter() - began)
            for settle in settled:  # last, so that whoever has an answer also finds it counted
                settle()

    def _next(self) -> list[Job]:
        """The oldest job and those that go with it; empty when closed and all is done."""
        with self._changed:
            while True:
                while self._waiting and self._waiting[0].result.cancelled():
                    self._waiting.popleft()
                if self._waiting:
                    break
                if self._closing:
                    return []
                self._changed.wait()
            first = self._waiting[0]
            until = time.monotonic() + self.linger
            while first.most > 1 and not self._closing:
                alone = all(job.key == first.key for job in self._waiting)
                left = until - time.monotonic()
                if not alone or len(self._waiting) >= first.most or left <= 0:
                    break
                self._changed.wait(left)
            jobs = [job for job in self._waiting if job.key == first.key and not job.result.cancelled()][: first.most]
            taken = {id(job) for job in jobs}
            self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        # The first may have been cancelled while it waited for company.
        return jobs or self._next()

    def _do(self, jobs: list[Job]) -> list[Callable[[], None]]:
        """Run the jobs together; returns what hands out their results."""

        def stop() -> None:
            if all(job.result.cancelled() for job in jobs):
                raise Abandoned

        try:
            results = jobs[0].run([job.payload for job in jobs], stop)
        except Abandoned:
            log.info("stopped: nobody waits for it any more")
            return []
        except BaseException as error:
            if len(jobs) > 1:
                # One bad picture must not take the others with it.
                return [settle for job in jobs for settle in self._do([job])]
            return [partial(_settle, jobs[0], error=error)]
        return [partial(_settle, job, result) for job, result in zip(jobs, results, strict=True)]


def _settle(job: Job, result: Any = None, error: BaseException | None = None) -> None:
    try:
        if error is None:
            job.result.set_result(result)
        else:
            job.result.set_exception(error)
    except InvalidStateError:
        log.debug("a result came after its request was gone")
