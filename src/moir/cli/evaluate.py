"""``moir evaluate``."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moir.cli.options import Device, Jobs, Json, Overwrite, Precision, Tile, tile_of
from moir.cli.output import bar, emit, say

if TYPE_CHECKING:
    from moir.evaluation.methods import Method, Predictions
    from moir.evaluation.records import Evaluation
    from moir.evaluation.run import Step
    from moir.evaluation.settings import Setting, Sources


def evaluate(
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="What to score on: benchmarks (cbsd68_s25, rain100l, live1_q10, ...), "
                     "groups (aio3, aio5, seven, mixed, mixed_out, single, single_out, cdd11, ...), 'pairs' or "
                     "'synthetic'; comma-separated, or repeated.", show_default=False),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The root of the data sets; see docs/datasets.md.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A shipped model, a weights file, hf://owner/repo, or any file that "
                     "spandrel reads (extra 'peers'); may be repeated. Default, if nothing else is scored: the "
                     "shipped one.", show_default=False),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="A file that 'moir adapt' wrote for the model; may be repeated, and each is scored on its "
                     "own; 'none': the model without any.", show_default=False),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of pictures that another program restored: FOLDER/BENCHMARK/NAME.*, or "
                     "FOLDER/NAME.*; may be repeated.", show_default=False),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="A classic method: identity, nlm, tv, ...; comma-separated, or repeated; 'all' for every one "
                     "that is installed.", show_default=False),
    ] = None,
    peer: Annotated[
        list[Path] | None,
        typer.Option(help="A network that spandrel reads (extra 'peers'); may be repeated.", show_default=False),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name in the tables: of the predictions, in their order; without predictions, of the model.",
                     show_default=False),
    ] = None,
    input_folder: Annotated[Path | None, typer.Option("--input", help="pairs: folder of damaged pictures.")] = None,
    target: Annotated[Path | None, typer.Option("--target", help="pairs: folder of clean pictures.")] = None,
    clean: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of clean pictures for 'synthetic', and instead of DIV2K for single* and mixed*; may "
                     "be repeated.", show_default=False),
    ] = None,
    spec: Annotated[
        list[str] | None,
        typer.Option("--with", help="synthetic: the damage, as for moir degrade ('rain=heavy,noise=25'), or 'clean'; "
                     "may be repeated.", show_default=False),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="moce_ir, promptir, restormer_y, adaptir or unirestorer; see docs/evaluation.md.")
    ] = "moce_ir",
    crop: Annotated[
        int | None, typer.Option(help="unirestorer: side of the crops, pixels.", show_default=False)
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="unirestorer: distance of the crops, pixels.", show_default=False)
    ] = None,
    noise: Annotated[
        str, typer.Option(help="per-image: noise depends on benchmark, picture, sigma and seed alone; published: one "
                          "stream through the whole run, as in the papers' programs.")
    ] = "per-image",
    seed: Annotated[int, typer.Option(help="Of noise and damage made here.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many pictures.", show_default=False)
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out this picture (NAME, or BENCHMARK/NAME); may be repeated.", show_default=False),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Tell the model what to remove (denoise, derain, ...; comma-separated), or 'setting': what "
                     "is in each benchmark. Default: blind.", show_default=False),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Models restore each picture in up to eight orientations; the mean is "
                                              "scored: the papers' NAME+.")
    ] = False,
    lpips: Annotated[bool, typer.Option("--lpips", help="LPIPS too (extra 'perceptual').")] = False,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="Parameters, MACs, memory and time of each method at 256x256.")
    ] = True,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path("evaluation"),
    jobs: Jobs = 1,
    device: Device = None,
    precision: Precision = None,
    tile: Tile = "auto",
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a folder that has results: what was scored is kept, failures and "
                           "what is new are done. (An interrupted run goes on by itself.)")
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Score models, baselines, or pictures that any other program restored, in the papers' protocols.

    Writes results.json, images.csv, provenance.json, and tables, plots and picture sheets. A picture that is missing,
    broken or not finite is reported and counted; the others are done. The exit code is 0 only if everything asked for
    was scored.
    """
    if limit is not None and not json:
        say(f"limit: only the first {limit} pictures of each benchmark; these are no published numbers")

    from moir.evaluation import protocols
    from moir.evaluation.output import JOURNAL, Keeper, begin, finish
    from moir.evaluation.run import Options, chosen
    from moir.evaluation.run import evaluate as run
    from moir.evaluation.settings import Sources

    chosen_protocol = protocols.protocol(protocol, crop=crop, stride=stride)
    options = Options(chosen_protocol, noise, seed, limit, tuple(exclude or ()), lpips, jobs)  # type: ignore[arg-type]
    places = Sources(data, tuple(clean or ()), tuple(spec or ()), input_folder, target)
    settings, missing = _settings(benchmark, places)
    for where, why in missing:
        say(f"Error: {why}")
        if json:
            emit({"setting": where, "error": why})
    if not settings:
        raise typer.Exit(1)
    methods = _methods(
        models=model or [], adapters=adapter or [], predictions=predictions or [], baselines=baseline or [],
        peers=peer or [], names=name or [], task=task, device=device, precision=precision, tile=tile,
        ensemble=ensemble, jobs=jobs,
    )  # fmt: skip

    replace = begin(output, overwrite=overwrite, resume=resume)
    journal = output / JOURNAL
    keeper = Keeper(output)
    total = len(methods) * sum(len(chosen(setting, options)) for setting in settings)
    resumed = 0
    with bar(total, "pictures") as progress:

        def on_step(step: "Step") -> None:
            nonlocal resumed
            resumed += step.resumed
            keeper(step)
            progress.update(progress.tasks[0].id, advance=1, description=f"{step.method} {step.setting.name}")
            if step.score.error is not None:
                say(f"Error: {step.method}, {step.setting.name}/{step.score.image}: {step.score.error}")
                if json:
                    emit({"method": step.method, "setting": step.setting.name, "image": step.score.image,
                          "error": step.score.error})  # fmt: skip

        try:
            evaluations = run(methods, settings, options, journal=journal, missing=missing, on_step=on_step)
        except KeyboardInterrupt:
            say(f"interrupted; what was scored is in {journal}, the same command goes on from there")
            raise
    if resumed:
        say(f"{resumed} of {total} scores were taken from {journal}")
    evaluations = finish(evaluations, methods, keeper, output, cost=cost, overwrite=replace, warn=say)
    _show(evaluations, output, json=json)
    if missing or any(s.failed or s.error for e in evaluations for s in e.summaries):
        raise typer.Exit(1)


def _settings(names: list[str] | None, places: "Sources") -> "tuple[list[Setting], list[tuple[str, str]]]":
    """The settings that are there, and those that are not, with the reason."""
    from moir.base.errors import InvalidValueError
    from moir.datasets import DatasetError, RootMissingError
    from moir.evaluation.settings import expand, settings

    found: list[Setting] = []
    missing: list[tuple[str, str]] = []
    asked = list(names or [])
    if not asked and places.input is not None:
        asked = ["pairs"]
    elif not asked and places.specs:
        asked = ["synthetic"]
    for name in expand(asked):
        try:
            for setting in settings(name, places):
                if not len(setting):
                    raise InvalidValueError(f"{setting.name} has no pictures")
                found.append(setting)
        except RootMissingError:
            raise
        except DatasetError as error:
            missing.append((name, str(error)))
    return found, missing


def _methods(
    *,
    models: list[str],
    adapters: list[str],
    predictions: list[Path],
    baselines: list[str],
    peers: list[Path],
    names: list[str],
    task: str | None,
    device: str | None,
    precision: str | None,
    tile: str,
    ensemble: bool,
    jobs: int,
) -> "list[Method | Predictions]":
    from moir.base.errors import InvalidValueError
    from moir.evaluation.methods import TOLD, Predictions, model_method
    from moir.restore import ALONE

    if adapters and len(models) > 1:
        raise InvalidValueError(
            f"{len(models)} models (--model) and --adapter: which model the adapter is for is not said; score each "
            "model with its adapters in a run of its own"
        )
    wanted: list[str | None] = [*models]
    if not models and (adapters or not (predictions or baselines or peers)):
        wanted = [None]
    rows = [(model, None if file == ALONE else file) for model in wanted for file in adapters or [ALONE]]
    named = len(predictions) or len(rows) + len(peers)
    if names and len(names) != named:
        what = "folders of predictions" if predictions else "models"
        raise InvalidValueError(f"{len(names)} names (--name) for {named} {what}; give each one, or none")
    tasks = task if task in (None, TOLD) else [t.strip() for t in (task or "").split(",")]
    own = iter(names)

    def next_name(of_predictions: bool) -> str | None:
        return next(own, None) if of_predictions == bool(predictions) else None

    found: list[Method | Predictions] = []
    for model, adapter in rows:
        found.append(
            model_method(
                model, adapter=adapter, name=next_name(False), task=tasks, device=device, precision=precision,
                tile=tile_of(tile), ensemble=ensemble,
            )
        )  # fmt: skip
    if peers:
        from moir.evaluation.peers import peer

        for path in peers:
            method = peer(path)
            method.name = next_name(False) or method.name
            found.append(method)
    if baselines:
        from moir.evaluation.baselines import baseline, list_baselines

        for word in dict.fromkeys(w.strip() for text in baselines for w in text.split(",")):
            found.extend(_installed(map(baseline, list_baselines())) if word == "all" else [baseline(word)])
    found.extend(Predictions(folder, name=next_name(True)) for folder in predictions)
    if jobs > 1:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    return found


def _installed(methods: "Iterable[Method]") -> "Iterator[Method]":
    import torch

    from moir.base.errors import MissingExtraError

    for method in methods:
        try:
            method.restore(torch.full((3, 32, 32), 0.5), setting=None)
        except MissingExtraError as error:
            say(f"left out {method.name}: {error}")
            continue
        yield method


def _show(evaluations: "list[Evaluation]", output: Path, *, json: bool) -> None:
    from moir.evaluation.results import summary

    if json:
        for e in evaluations:
            for s in e.summaries:
                if s.error is None:
                    emit({"method": e.method, "setting": s.setting, **summary(s, e.protocol)})
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table("method", "setting", box=None, pad_edge=False)
    for column in ("n", "failed", "input, dB", "PSNR, dB", "95%", "SSIM"):
        shown.add_column(column, justify="right")
    for e in evaluations:
        for s in e.summaries:
            low, high = s.intervals.get("psnr", (None, None))
            shown.add_row(
                e.method,
                s.setting,
                str(s.n),
                str(s.failed),
                *(_number(s.means.get(key), 2) for key in ("input_psnr", "psnr")),
                "" if low is None or high is None else f"{low:.2f}..{high:.2f}",
                _number(s.means.get("ssim"), 4),
            )
    Console(highlight=False).print(shown)
    say(f"protocol {evaluations[0].protocol}; results in {output}")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
