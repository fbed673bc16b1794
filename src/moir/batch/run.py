"""Doing many jobs, so that one bad file stops nothing else."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from moir.base.errors import MoirError
from moir.batch.inputs import Job

log = logging.getLogger(__name__)

Record = dict[str, Any]


def run_jobs(
    jobs: Sequence[Job], do: Callable[[Job], Record], *, workers: int = 1, resume: bool = False
) -> Iterator[Record]:
    """Do every job and give its record as soon as it is done.

    Args:
        jobs: What to do.
        do: Does one job and returns what shall be reported about it.
        workers: Jobs at a time (threads: decoding, networks and encoding all leave the interpreter free).
        resume: Leave out jobs whose output is there. Outputs appear whole or not at all, so one that is there is done.

    Yields:
        ``{"input", "output", ...}`` of a job done, ``{..., "skipped": true}`` of one left out, ``{"input", "error"}``
        of one that failed; in the order of completion.
    """
    waiting = iter(jobs)
    if workers <= 1:
        for job in waiting:
            yield _one(job, do, resume)
        return
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[Record]] = set()
        try:
            while True:
                # No more are handed out than can be worked on, so that memory stays bounded and Ctrl-C acts soon.
                while len(running) < workers and (following := next(waiting, None)) is not None:
                    running.add(pool.submit(_one, following, do, resume))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(job: Job, do: Callable[[Job], Record], resume: bool) -> Record:
    names = {"input": str(job.input), "output": str(job.output)}
    if resume and job.output.exists():
        return {**names, "skipped": True}
    try:
        return {**names, **do(job)}
    except MoirError as error:
        return {"input": str(job.input), "error": str(error)}
    except Exception as error:  # a defect of ours or of a library must not cost the user the other pictures
        log.debug("unexpected error", exc_info=True)
        return {"input": str(job.input), "error": f"unexpected {type(error).__name__}: {error}"}
