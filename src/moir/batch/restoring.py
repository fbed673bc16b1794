"""``moir restore`` over many files: what is done already, how many workers, and the manifest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moir.base.errors import InvalidValueError
from moir.batch.inputs import Job, is_video_name
from moir.batch.manifest import Manifest, Record, check_settings, held, read_done
from moir.batch.settings import Settings, key_of
from moir.batch.store import remove_leftovers, sort_out

if TYPE_CHECKING:
    from moir.restore import Restorer

Report = Callable[[Record], None]


@dataclass(frozen=True)
class Options:
    """How a run behaves; nothing here changes a result.

    Attributes:
        workers: Pictures at a time; None: all GPUs, or all cores if there are many pictures.
        manifest: Where results are recorded; None: nowhere.
        resume: Leave out what is done.
        overwrite: Replace what exists.
        on_step: Called with the file's name, the steps done and all steps, within a clip.
    """

    workers: int | None = None
    manifest: Path | None = None
    resume: bool = False
    overwrite: bool = False
    on_step: Callable[[str, int, int], None] | None = None


def default_manifest(output: str | Path | None, jobs: Sequence[Job]) -> Path | None:
    """Where the manifest of an output folder lies: ``FOLDER.manifest.jsonl`` beside it; None without such a folder."""
    if output is None or (len(jobs) == 1 and jobs[0].output == Path(output).expanduser()):
        return None
    folder = Path(output).expanduser()
    return folder.with_name(f"{folder.absolute().name}.manifest.jsonl")


def restore_many(jobs: Sequence[Job], settings: Settings, report: Report, options: Options | None = None) -> None:
    """Restore pictures and clips, so that one failure stops nothing else.

    A run that was killed, even by ``kill -9``, goes on with ``resume``: what the manifest has is neither done again
    nor lost. Memory depends on the workers, not on the number of files.

    Args:
        jobs: Inputs and outputs.
        settings: What is done to each.
        report: Takes one record per job, in the order of completion: ``{"input", "output", ...}``,
            ``{..., "skipped": true}`` or ``{"input", "error"}``.
        options: See :class:`Options`.

    Raises:
        MoirError: The model, device or another setting is not possible; nothing was done.
        InvalidValueError: The manifest is of other settings, and ``overwrite`` was not asked for; or one of the inputs
            is a clip, and the model makes pictures larger, or an ensemble was asked for.
    """
    options = options or Options()
    restorer = settings.load()
    scale = restorer.engine.network.scale
    if scale != 1 and (clips := [job.input for job in jobs if is_video_name(job.input)]):
        raise InvalidValueError(
            f"{restorer.name} makes pictures {scale} times larger, and videos keep their size ({clips[0]}); "
            "restore the frames as pictures"
        )
    if settings.ensemble and (clips := [job.input for job in jobs if is_video_name(job.input)]):
        raise InvalidValueError(f"--ensemble is for pictures, and {clips[0]} is a clip; leave it out for clips")
    if options.manifest is None:
        _run(list(jobs), settings, restorer, report, options, None)
        return
    with held(options.manifest, alone=True):
        identity = settings.identity(restorer)
        if options.resume and not options.overwrite:
            check_settings(options.manifest, identity)
        manifest = Manifest(options.manifest, key_of(identity))
        manifest.begin(identity)
        _run(list(jobs), settings, restorer, report, options, manifest)


def _run(
    jobs: list[Job],
    settings: Settings,
    restorer: "Restorer",
    report: Report,
    options: Options,
    manifest: Manifest | None,
) -> None:
    if options.resume:
        done = read_done(manifest.path) if manifest is not None else {}
        key = manifest.key if manifest is not None else ""
        remove_leftovers(jobs)
        jobs, records = sort_out(jobs, done, key, overwrite=options.overwrite)
        for record in records:
            report(record)
    pictures = [job for job in jobs if not is_video_name(job.input)]
    clips = [job for job in jobs if is_video_name(job.input)]
    if clips:
        from moir.batch.video import restore_clips

        restore_clips(clips, settings, restorer, report, options, manifest)
    if pictures:
        _restore_pictures(pictures, settings, restorer, report, options, manifest)


def _restore_pictures(
    jobs: list[Job],
    settings: Settings,
    restorer: "Restorer",
    report: Report,
    options: Options,
    manifest: Manifest | None,
) -> None:
    import torch

    from moir.batch.pipeline import Pipeline
    from moir.batch.workers import places, run_workers
    from moir.runtime.memory import free_memory

    device = restorer.engine.device
    where = places(
        settings.device if settings.device not in (None, "auto") else device.type,
        len(jobs),
        options.workers,
        torch.get_num_threads(),
        torch.cuda.device_count(),
        free_memory(torch.device("cpu")),
    )
    if len(where) > 1:
        # The workers have models of their own.
        del restorer
        run_workers(
            jobs, settings, where, report, manifest=manifest, overwrite=options.overwrite, resume=options.resume
        )
        return
    waiting = iter(jobs)
    pipeline = Pipeline(
        restorer,
        replace(settings, device=where[0].device),
        manifest=manifest,
        overwrite=options.overwrite,
        resume=options.resume,
        readers=where[0].io,
        writers=where[0].io,
    )
    pipeline.run(lambda: next(waiting, None), report)
