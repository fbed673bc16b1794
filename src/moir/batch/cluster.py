"""``moir restore --ray``: a folder restored by many machines, with Ray Data. Needs the extra ``cluster``.

One restorer per actor, on a GPU where the cluster has some, else on one core. The pictures go out in small blocks; when
a worker dies Ray starts another, which gets the block again. What the dead one had finished is there and whole, so it
is left alone and only recorded: every picture is done once. All records come to the driver, which writes the manifest.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moir.base.errors import (
    InvalidValueError,
    MoirError,
    OutputConflictError,
    OutputExistsError,
    PictureNotFoundError,
)
from moir.base.extras import needs_extra
from moir.batch.cluster_worker import Attempts, Pair, Worker
from moir.batch.inputs import Job, Selection, pair_outputs, select_inputs, writable_suffix
from moir.batch.manifest import Manifest, Record, check_settings, held, read_done
from moir.batch.remote import exists_url, is_url, join_url, list_files, local_name
from moir.batch.restoring import default_manifest
from moir.batch.settings import Settings, key_of
from moir.batch.store import remove_leftovers, sort_out
from moir.picture import is_picture_name

LARGEST_BLOCK = 32
"""Pictures that one task of an actor does, so many that decoding overlaps, so few that a dead worker costs little."""


def restore_on_cluster(
    inputs: Sequence[str],
    output: str | Path | None,
    settings: Settings,
    report: Callable[[Record], None],
    *,
    address: str = "auto",
    workers: int | None = None,
    manifest: Path | None = None,
    recursive: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    on_total: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> None:
    """Restore pictures on a Ray cluster.

    Args:
        inputs: Files, folders and globs that every machine sees under this name, or URLs of files and folders.
        output: A folder, or a URL of one (as a string, since a path has no double slash); None: beside the inputs,
            which must then be paths.
        settings: What is done to each picture.
        report: Takes every picture's record, in the order of completion.
        address: ``auto``: the running cluster, or one of this machine alone; ``local``: one of this machine; else
            the cluster's address.
        workers: Actors; None: all GPUs, or all cores.
        manifest: Where the driver writes the records; None: as without a cluster, nowhere for URLs.
        recursive, resume, overwrite: As without a cluster. For URLs ``resume`` leaves out what exists.
        on_total: Called once with the number of pictures.
        note: Takes lines for people (skipped files).

    Raises:
        MissingExtraError: Ray is not installed.
        MoirError: The settings are not possible, or an output exists.
    """
    if settings.compare:
        raise InvalidValueError("--compare is not possible with --ray; restore single pictures without it")
    folder = None if output is None else str(output)
    pairs, skipped = pair_up(inputs, folder, recursive=recursive, resume=resume, overwrite=overwrite)
    for name in skipped:
        (note or str)(f"skipped {name}: not a picture by its name")
    if on_total is not None:
        on_total(len(pairs))
    local = [Job(Path(a), Path(b)) for a, b in pairs if not is_url(a) and not is_url(b)]
    if manifest is None and len(local) == len(pairs):
        manifest = default_manifest(None if folder is None else local_name(folder), local)
    restorer = settings.load("cpu")  # a wrong model or option is answered here, not by every actor
    identity = settings.identity(restorer)
    del restorer
    if manifest is None:
        _run(pairs, local, settings, report, address, workers, None, resume, overwrite)
        return
    with held(manifest, alone=True):
        if resume and not overwrite:
            check_settings(manifest, identity)
        book = Manifest(manifest, key_of(identity))
        book.begin(identity)
        _run(pairs, local, settings, report, address, workers, book, resume, overwrite)


def pair_up(
    inputs: Sequence[str], folder: str | None, *, recursive: bool, resume: bool, overwrite: bool
) -> tuple[list[Pair], list[str]]:
    """Pairs of source and target, and what was skipped; as :func:`moir.batch.inputs.pair_outputs`, and for URLs.

    Raises:
        InvalidValueError: URLs without an output.
        PictureNotFoundError: No pictures.
        OutputExistsError, OutputConflictError: As without a cluster.
    """
    names = [local_name(name) for name in inputs]
    if not any(is_url(name) for name in (*names, folder or "")):
        selection = select_inputs([str(Path(name).absolute()) for name in names], recursive=recursive)
        target = None if folder is None else Path(local_name(folder)).absolute()
        jobs = pair_outputs(selection, target, resume=resume, overwrite=overwrite)
        return [(str(job.input), str(job.output)) for job in jobs], [str(path) for path in selection.skipped]
    if folder is None:
        raise InvalidValueError("pictures at URLs need an --output, a folder or a URL")
    found: dict[str, str] = {}
    skipped: list[str] = []
    for name in names:
        if not is_url(name):
            local = select_inputs([str(Path(name).absolute())], recursive=recursive)
            found.update({str(path): relative.as_posix() for path, relative in local.files})
            skipped += [str(path) for path in local.skipped]
            continue
        for url, relative in list_files(name, recursive=recursive):
            if is_picture_name(relative) or url == name:
                found[url] = relative
            else:
                skipped.append(url)
    if not found:
        raise PictureNotFoundError(f"no pictures in {', '.join(inputs)}")
    if not is_url(folder):
        root = Path(local_name(folder)).absolute()
        selection = Selection([(Path(url), Path(relative)) for url, relative in found.items()])
        jobs = pair_outputs(selection, root, resume=resume, overwrite=overwrite)
        return [(url, str(job.output)) for url, job in zip(found, jobs, strict=True)], skipped
    pairs = []
    for url, relative in found.items():
        kept = Path(relative).with_suffix(writable_suffix(Path(relative))).as_posix()
        pairs.append((url, join_url(folder, kept)))
    targets = {target for _, target in pairs}
    if len(targets) < len(pairs):
        raise OutputConflictError("two inputs would be written to one output; give each folder its own --output")
    if not (resume or overwrite) and exists_url(folder):
        taken = sorted(targets.intersection(url for url, _ in list_files(folder, recursive=True)))
        if taken:
            raise OutputExistsError(f"{taken[0]} exists already; give another name, or allow overwriting or --resume")
    return pairs, skipped


def _run(
    pairs: list[Pair],
    local: list[Job],
    settings: Settings,
    report: Callable[[Record], None],
    address: str,
    workers: int | None,
    manifest: Manifest | None,
    resume: bool,
    overwrite: bool,
) -> None:
    if resume:
        remove_leftovers(local)
        done = read_done(manifest.path) if manifest is not None else {}
        key = manifest.key if manifest is not None else ""
        todo, records = sort_out(local, done, key, overwrite=overwrite)
        wanted = {str(job.output) for job in todo}
        distant = [pair for pair in pairs if is_url(pair[0]) or is_url(pair[1])]
        pairs = [pair for pair in pairs if pair[1] in wanted]
        for source, target in distant:
            there = exists_url(target) if is_url(target) else Path(target).exists()
            if there and not overwrite:
                records.append({"input": source, "output": target, "skipped": True})
            else:
                pairs.append((source, target))
        for record in records:
            report(record)
    if not pairs:
        return
    with _cluster(address) as ray:
        for record in _records(ray, pairs, settings, workers, overwrite):
            if manifest is not None:
                manifest.add(record)
            shown = {k: v for k, v in record.items() if k not in ("input_stat", "output_stat", "sha256")}
            report({k: v for k, v in shown.items() if k != "output"} if "error" in record else shown)
    remove_leftovers(local)  # of workers that died


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected; what was connected before stays so."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with needs_extra("cluster", "--ray needs Ray"):
        import ray
        import ray.data
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    alone: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        if address == "local":
            ray.init(address="local", **alone, **options)
        elif address == "auto":
            try:
                ray.init(address="auto", **options)
            except ConnectionError:
                ray.init(address="local", **alone, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MoirError(f"cannot connect to the Ray cluster {address!r}: {error}; is it running?") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _records(ray: Any, pairs: list[Pair], settings: Settings, workers: int | None, overwrite: bool) -> Iterator[Record]:
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    on_gpus = gpus > 0 and settings.device in (None, "auto", "cuda")
    count = max(1, min(workers or (gpus if on_gpus else cpus), gpus if on_gpus else cpus, len(pairs)))
    threads = max(1, cpus // count)
    block = max(1, min(LARGEST_BLOCK, len(pairs) // (4 * count)))

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours is shown
    context.print_on_execution_start = False
    attempts = ray.remote(num_cpus=0, max_restarts=-1)(Attempts).remote()
    rows = ray.data.from_items(
        [{"source": source, "target": target} for source, target in pairs],
        override_num_blocks=-(-len(pairs) // block),
    )
    results = rows.map_batches(
        Worker,
        batch_size=None,  # a block as it is
        fn_constructor_args=(settings, _shipped(settings.model), on_gpus, threads, overwrite, attempts),
        compute=ray.data.ActorPoolStrategy(size=count),
        num_gpus=1 if on_gpus else 0,
        num_cpus=threads,
    )
    for row in results.iter_rows():
        yield json.loads(row["record"])


def _shipped(model: str | None) -> dict[str, bytes] | None:
    """The weights file and its card, if they lie on the driver's disk, which other machines may not see."""
    if model is None or model.startswith("hf://") or not Path(model).suffix:
        return None
    path = Path(model).expanduser()
    return {file.name: file.read_bytes() for file in (path, path.with_suffix(".json")) if file.is_file()}
