"""Restoring a clip: find its shots, decide once for each, restore segment by segment, join, and go on after a kill."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moir.base.errors import PictureCorruptError
from moir.base.files import atomic_path, check_absent
from moir.batch.inputs import Job
from moir.batch.manifest import Manifest, Record, stat_of
from moir.batch.pipeline import failure
from moir.batch.settings import Settings, key_of
from moir.batch.store import commit
from moir.batch.video.colour import to_tensor
from moir.batch.video.encoding import write_segment
from moir.batch.video.joining import join
from moir.batch.video.opening import frames, opened, pyav
from moir.batch.video.plan import Plan, Segment, load_plan, make_plan, save_plan
from moir.batch.video.routing import decide
from moir.findings import estimate_report, read_estimate, uncertainty
from moir.networks.base import Context, select
from moir.restore import ALONE, Restorer

if TYPE_CHECKING:
    from moir.batch.restoring import Options, Report

Step = Callable[[int, int], None]


def restore_clips(
    jobs: Sequence[Job],
    settings: Settings,
    restorer: Restorer,
    report: "Report",
    options: "Options",
    manifest: Manifest | None,
) -> None:
    """Restore clips, one after another; see :func:`moir.batch.restoring.restore_many`."""
    pyav()  # say once that it is missing, not once per clip
    for job in jobs:
        name, on_step = job.input.name, options.on_step

        def step(done: int, total: int, name: str = name, on_step: Any = on_step) -> None:
            if on_step is not None:
                on_step(name, done, total)

        try:
            record = restore_clip(
                job,
                settings,
                restorer,
                manifest=manifest,
                resume=options.resume,
                overwrite=options.overwrite,
                on_step=step,
            )
        except Exception as error:
            record = failure(job.input, error)
            if manifest is not None:
                manifest.add({**record, "output": str(job.output)})
        report(record)


def restore_clip(
    job: Job,
    settings: Settings,
    restorer: Restorer,
    *,
    manifest: Manifest | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Step | None = None,
) -> Record:
    """Restore one clip.

    Finished segments lie in a folder ``.NAME.moir`` beside the output until the clip is whole; with ``resume`` those of
    a killed run with the same settings and input are used. Memory does not depend on the length of the clip.

    Args:
        job: The clip and where the result goes; its suffix decides the container.
        settings: Task and strength. (``compare`` is for pictures.)
        restorer: Restores.
        manifest: Gets the record; None: none is kept.
        resume: Use finished segments.
        overwrite: The output may be replaced.
        on_step: Called after every frame with frames done and all frames.

    Returns:
        The record of a picture, with ``frames``, ``shots`` (of each: its number of frames, expert and estimate) and,
        where something could not be kept, ``lost``. Expert and estimate of the clip are those of its longest shot.

    Raises:
        PictureError: The clip cannot be read or written.
        OutputExistsError: The output exists, and ``overwrite`` is false.
    """
    began = time.perf_counter()
    check_absent(job.output, overwrite=overwrite)
    input_stat = stat_of(job.input) if job.input.exists() else (0, 0)
    work = work_folder(job.output)
    if not resume and work.exists():
        shutil.rmtree(work)
    key = key_of(settings.identity(restorer)) if restorer.card else key_of({"model": restorer.name})
    plan = load_plan(work / "plan.json", key, input_stat)
    if plan is None:
        if work.exists():
            shutil.rmtree(work)
        plan = make_plan(job.input)
        save_plan(plan, work / "plan.json", key, input_stat)
    tiles: set[int] = set()
    adapter = settings.adapter_of(restorer, job.input.name)
    with restorer.acting(adapter):
        contexts = _restore_segments(job, settings, restorer, plan, work, tiles, on_step)
    usual = (restorer.name, "all") if adapter == ALONE else (adapter, "adapter")
    record = _record(plan, contexts, restorer, settings, usual, time.perf_counter() - began)
    if tiles:  # none if every frame was restored before
        record["tiles"] = max(tiles)
    with atomic_path(job.output, overwrite=overwrite) as temporary:
        lost = join([_segment_path(work, i) for i in range(len(plan.segments))], job.input, plan.facts, temporary)
        if lost:
            record["lost"] = lost
        if manifest is not None:
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            commit(temporary, job, record, manifest=manifest, input_stat=input_stat, sha256=digest)
    shutil.rmtree(work)
    return {"input": str(job.input), "output": str(job.output), **record}


def work_folder(output: Path) -> Path:
    """Where finished segments lie until the clip is whole."""
    return output.with_name(f".{output.name}.moir")


def restore_frames(
    pictures: Iterable[torch.Tensor], restorer: Restorer, context: Context | None, strength: float = 1.0
) -> Iterator[tuple[torch.Tensor, int]]:
    """Restore frames by one routing, or, without a context, each by its own (which flickers: for comparison).

    Args:
        pictures: (3, H, W) each.
        restorer: Restores.
        context: The routing of their shot, of batch size 1.
        strength: How much of the change to apply.

    Yields:
        The restored frame, and into how many tiles it was cut.
    """
    for picture in pictures:
        x = picture[None]
        routing = restorer.engine.analyse(x) if context is None else context
        output = restorer.engine.restore(x, routing)
        result = torch.lerp(x, output.pictures, strength) if strength < 1 else output.pictures
        yield result[0], output.tiles


def _restore_segments(
    job: Job, settings: Settings, restorer: Restorer, plan: Plan, work: Path, tiles: set[int], on_step: Step | None
) -> list[Context]:
    """Restore what is not there yet; the routing of every shot. The numbers of tiles per frame go to ``tiles``."""
    contexts: list[Context] = []
    done = 0
    for number, segment in enumerate(plan.segments):
        if segment.shot == len(contexts):
            samples = plan.shots[segment.shot].samples
            contexts.append(decide(restorer, job.input, plan.facts, samples, settings.tasks))
        path = _segment_path(work, number)
        if not path.exists():
            context = contexts[segment.shot]
            pictures = _restored(job.input, plan, segment, restorer, context, settings, tiles, done, on_step)
            written = write_segment(path, pictures, plan.facts, job.output)
            if written != segment.frames:
                path.unlink()
                raise PictureCorruptError(
                    f"{job.input} gave {written} of the {segment.frames} frames from time {segment.start} on when it "
                    "was read again; it is damaged, or was changed meanwhile"
                )
        done += segment.frames
        if on_step is not None:
            on_step(done, plan.frames)
    return contexts


def _restored(
    source: Path,
    plan: Plan,
    segment: Segment,
    restorer: Restorer,
    context: Context,
    settings: Settings,
    tiles: set[int],
    done: int,
    on_step: Step | None,
) -> Iterator[tuple[int, int, torch.Tensor]]:
    with opened(source) as container:
        for number, frame in enumerate(frames(container, segment.start), 1):
            ((restored, count),) = restore_frames([to_tensor(frame, plan.facts)], restorer, context, settings.strength)
            tiles.add(count)
            yield frame.pts, frame.duration or 0, restored
            if on_step is not None:
                on_step(done + number, plan.frames)
            if number == segment.frames:
                return


def _segment_path(work: Path, number: int) -> Path:
    return work / f"{number:06}.nut"


def _record(
    plan: Plan,
    contexts: list[Context],
    restorer: Restorer,
    settings: Settings,
    usual: tuple[str, str],
    seconds: float,
) -> Record:
    accounts = []
    for context in contexts:
        own = select(context, [0])
        ((expert, granularity),) = restorer.engine.network.account(own) or [usual]
        accounts.append(
            {"expert": expert, "granularity": granularity, **estimate_report(read_estimate(own), uncertainty(own))}
        )
    longest = max(range(len(plan.shots)), key=lambda i: plan.shots[i].frames)
    return {
        "width": plan.facts.width,
        "height": plan.facts.height,
        "model": restorer.name,
        **accounts[longest],
        "strength": settings.strength,
        "seconds": round(seconds, 4),
        "frames": plan.frames,
        "shots": [{"frames": shot.frames, **account} for shot, account in zip(plan.shots, accounts, strict=True)],
    }
