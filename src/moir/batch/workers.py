"""Worker processes: one restorer each, jobs handed out over pipes, and a dead worker replaced.

Processes rather than threads, because a crash of a decoder or the out-of-memory killer then costs one worker and not
the run, and because each GPU is best fed by an interpreter of its own. On a CPU every worker gets an equal share of the
cores. The parent reads no pictures; it hands out a few jobs ahead, so that every worker can decode the next one.
"""

import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from moir.base.errors import MoirError
from moir.base.logs import log_warnings
from moir.batch.inputs import Job
from moir.batch.manifest import Manifest, Record, held, recorded
from moir.batch.settings import Settings

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a picture may be in the hands of a worker that dies before it is given up."""

HOPELESS = 3 * ATTEMPTS
"""After so many deaths without a result in between the run ends."""


@dataclass(frozen=True)
class Place:
    """Where one worker works.

    Attributes:
        device: As for :func:`moir.restore.load`.
        threads: Threads of the network on a CPU.
        io: Threads that read, and as many that write.
    """

    device: str
    threads: int
    io: int = 1


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    place: Place
    jobs: dict[int, Job] = field(default_factory=dict)
    ready: bool = False
    dismissed: bool = False

    def dismiss(self) -> None:
        """Let it go home when it has done what it has."""
        if not self.dismissed:
            self.dismissed = True
            with suppress(OSError):
                self.pipe.send(None)


def places(device: str, pictures: int, wanted: int | None, cores: int, gpus: int, memory: int | None) -> list[Place]:
    """How many workers, and where, so that neither cores nor memory are promised twice.

    Args:
        device: The device asked for or found: ``cpu``, ``cuda`` (all GPUs), ``cuda:1``, ``mps``.
        pictures: How many there are to do.
        wanted: Workers asked for; None: one for every GPU, or one for every core if there are enough pictures to make
            their start (seconds each) worth it.
        cores: Threads that torch would use.
        gpus: How many there are.
        memory: Free bytes, None if unknown.

    Examples:
        >>> places("cpu", 10_000, None, cores=8, gpus=0, memory=3 * 2**30)
        [Place(device='cpu', threads=4, io=1), Place(device='cpu', threads=4, io=1)]
        >>> places("cuda", 10_000, None, cores=16, gpus=2, memory=None)
        [Place(device='cuda:0', threads=1, io=4), Place(device='cuda:1', threads=1, io=4)]
    """
    if device == "cpu":
        count = wanted or (cores if pictures >= WORTH * cores else 1)
        if wanted is None and memory is not None:
            count = min(count, memory // NEEDED)
        count = max(1, min(count, pictures))
        return [Place("cpu", max(1, cores // count))] * count
    devices = [f"cuda:{i}" for i in range(gpus)] if device == "cuda" and gpus > 1 else [device]
    count = max(1, min(wanted or len(devices), pictures))
    return [Place(devices[i % len(devices)], 1, min(8, max(1, cores // (2 * count)))) for i in range(count)]


WORTH = 4
"""Pictures per core from which on workers are started without being asked for."""

NEEDED = 5 * 2**28
"""Memory that a worker on a CPU is counted with, bytes: torch and a model, tiles (512 MiB) and a few pictures."""


def run_workers(
    jobs: Sequence[Job],
    settings: Settings,
    where: Sequence[Place],
    report: Callable[[Record], None],
    *,
    manifest: Manifest | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Do all jobs in worker processes.

    Args:
        jobs: What to do.
        settings: For every picture.
        where: One entry per worker.
        report: Takes every job's record, in the order of completion.
        manifest, overwrite, resume: See :class:`moir.batch.pipeline.Pipeline`.
    """
    waiting = deque(range(len(jobs)))
    attempts: dict[int, int] = {}
    spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and locks in any state

    def start(place: Place) -> _Worker:
        ours, theirs = spawn.Pipe()
        how = {"manifest": manifest, "overwrite": overwrite, "resume": resume}
        process = spawn.Process(target=_work, args=(theirs, settings, place, how), daemon=True)
        process.start()
        theirs.close()  # else the end of the worker could not be seen
        return _Worker(process, ours, place)

    def feed(worker: _Worker) -> None:
        # What was in the hands of a worker that died is handed out alone, so that it can take nothing else with it.
        while worker.ready and waiting and len(worker.jobs) < 2 * worker.place.io + 2:
            if worker.jobs and (waiting[0] in attempts or any(number in attempts for number in worker.jobs)):
                return
            number = waiting.popleft()
            worker.jobs[number] = jobs[number]
            try:
                worker.pipe.send((number, jobs[number]))
            except OSError:
                return  # it is dead, which is dealt with where its end is seen

    def bury(worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join()
        for number in reversed(worker.jobs):
            # It may have died after the picture was done and before it could say so.
            if manifest is not None and (record := recorded(manifest, jobs[number])) is not None:
                report({**record, "worker": worker.process.pid})
                continue
            attempts[number] = attempts.get(number, 0) + 1
            if attempts[number] < ATTEMPTS:
                waiting.appendleft(number)
                continue
            record = {
                "input": str(jobs[number].input),
                "error": f"{ATTEMPTS} workers died with it (last exit code {worker.process.exitcode}); it may need "
                "more memory than there is: try fewer --jobs or a smaller --tile",
            }
            if manifest is not None:
                manifest.add({**record, "output": str(jobs[number].output)})
            report(record)

    workers: list[_Worker] = []
    barren = 0
    try:
        for place in where:
            workers.append(start(place))
        while workers:
            for worker in workers:
                feed(worker)
                if not worker.jobs and not waiting:
                    worker.dismiss()
            ready = wait([worker.pipe for worker in workers])
            for worker in list(workers):
                if worker.pipe not in ready:
                    continue
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    lost = not worker.dismissed or bool(worker.jobs)
                    bury(worker)
                    barren += lost
                    if barren > HOPELESS:
                        raise MoirError(
                            f"{barren} worker processes died one after another without a result (last exit code "
                            f"{worker.process.exitcode}); there may be too little memory: try --jobs 1"
                        ) from None
                    if lost and waiting:
                        log.warning(
                            "worker %s died (exit code %s); its pictures are given to another",
                            worker.process.pid,
                            worker.process.exitcode,
                        )
                        workers.append(start(worker.place))
                    continue
                if message is None:
                    worker.ready = True
                    continue
                number, record = message
                barren = 0
                del worker.jobs[number]
                report(record)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _work(pipe: Connection, settings: Settings, place: Place, how: dict[str, Any]) -> None:
    """The life of a worker: say that it is ready (None), then do what comes through the pipe, until None or its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log_warnings()
    manifest: Manifest | None = how["manifest"]
    # A run that is killed leaves its workers finishing what they have; the next run waits for them by this. So nothing
    # may be handed out before it is held: a worker still starting would otherwise go to work beside the next run.
    with held(manifest.path, alone=False) if manifest is not None else nullcontext():
        with suppress(OSError):  # the parent is gone, as the pipe will say
            pipe.send(None)
        _work_through(pipe, settings, place, how)


def _work_through(pipe: Connection, settings: Settings, place: Place, how: dict[str, Any]) -> None:
    import torch

    from moir.batch.pipeline import Pipeline, failure

    torch.set_num_threads(place.threads)
    numbers: dict[str, int] = {}

    def orphaned() -> bool:
        parent = multiprocessing.parent_process()
        return parent is not None and not parent.is_alive()

    def following() -> Job | None:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return None
        if orphaned():  # what is in hand is finished; what still lay in the pipe is left to the next run
            return None
        if item is None:
            return None
        number, job = item
        numbers[str(job.input)] = number
        return job

    def report(record: Record) -> None:
        with suppress(OSError):  # the parent is gone
            pipe.send((numbers.pop(record["input"]), {**record, "worker": os.getpid()}))

    if orphaned():
        return
    try:
        restorer = settings.load(place.device)
        pipeline = Pipeline(restorer, settings, readers=place.io, writers=place.io, **how)
    except Exception as error:
        while (job := following()) is not None:
            report(failure(job.input, error))
        return
    pipeline.run(following, report)
