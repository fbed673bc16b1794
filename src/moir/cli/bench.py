"""``moir bench``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moir.base.errors import InvalidValueError
from moir.cli.options import Device, Json
from moir.cli.output import bar, emit, say

if TYPE_CHECKING:
    from moir.evaluation.bench import Row


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A shipped model, a network of 'moir models' (with random weights), a "
                     "weights file or hf://owner/repo; may be repeated. Default: the shipped one and moce_ir_s.",
                     show_default=False),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option("--size", help="Side of the square pictures, pixels; may be repeated. Default: 256.",
                     show_default=False),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="float32, bf16 or fp16; may be repeated. Default: float32 and what else is "
                     "fast here.", show_default=False),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="plain, fast, graphs, compile, onnxruntime or openvino; may be repeated. "
                     "Default: those that are ready in seconds.", show_default=False),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed runs of each.")] = 5,
    device: Device = None,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Peak memory, in a further process for each row.")
    ] = True,
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Instead: parameters, MACs, memory and time of every network, as it is "
                           "written, in float32.")
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Speed on this machine, side by side with the straightforward networks in float32 (the yardstick).

    All engines and precisions of a model take turns in one run; the ratio is that of the fastest runs. Memory is what
    a process of its own needs above the loaded model. The share of the peak is against a large matrix product in the
    same precision, measured in the same run.
    """
    if overhead:
        if precision or engine or (size and len(size) > 1):
            raise InvalidValueError("--overhead takes no --precision and no --engine, and at most one --size")
        _overhead(model, (size or [256])[0], device, repeats, json=json)
        return
    from moir.evaluation.bench import bench as run
    from moir.evaluation.bench import plan

    cases = plan(model, size, precision, engine, device)
    rows = []
    with bar(len(cases) * repeats, "runs") as progress:
        for row in run(
            cases,
            repeats=repeats,
            memory=memory,
            on_run=lambda case, *_: progress.update(
                progress.tasks[0].id, advance=1, description=f"{case.model} {case.size} {case.engine} {case.precision}"
            ),
            note=say,
        ):
            rows.append(row)
            if json:
                emit(row.record())
    if not json:
        _show(rows)


def _show(rows: "list[Row]") -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("engine", box=None, pad_edge=False)
    for column in ("median\nms", "min\nms", "memory\nMB", "ratio", "PSNR\ndB", "of\npeak"):
        shown.add_column(column, justify="right")
    before = None
    for row in rows:
        if before != (row.model, row.size):  # a line of its own: names are long, and lines of terminals are short
            before = (row.model, row.size)
            shown.add_row(f"[bold]{row.model} {row.size}[/bold]")
        shown.add_row(
            f"  {row.engine} {row.precision}",
            f"{1000 * row.median_s:.1f}",
            f"{1000 * row.min_s:.1f}",
            _number(row.peak_mb, 0),
            f"{row.ratio:.2f}",
            "equal" if row.psnr_to_yardstick is None else f"{row.psnr_to_yardstick:.1f}",
            f"{row.share_of_peak:.0%}",
        )
    console = Console(highlight=False)
    console.print(shown)
    peaks = ", ".join(
        f"{precision} {peak:.0f}" for precision, peak in {r.precision: r.peak_gflops for r in rows}.items()
    )
    first = rows[0]
    console.print(
        f"\n{first.device}, {first.threads} threads; peak of a matrix product, GFLOP/s: {peaks}; copy in memory "
        f"{first.copy_gb_s:.0f} GB/s; PSNR and ratio against the yardstick",
        soft_wrap=True,
    )
    facts = {r.model: f"{r.model}: {r.parameters / 1e6:.2f} M parameters, {r.weights} weights" for r in rows}
    work = {(r.model, r.size): f"{r.macs / 1e9:.1f} GMACs at {r.size} px" for r in rows}
    for model, fact in facts.items():
        console.print(", ".join([fact, *(text for (name, _), text in work.items() if name == model)]), soft_wrap=True)


def _overhead(models: list[str] | None, size: int, device: str | None, repeats: int, *, json: bool) -> None:
    from moir.evaluation.bench import overhead
    from moir.models import list_models

    rows: list[dict[str, Any]] = []
    with bar(len(models or list_models()), "models") as progress:
        for row in overhead(models, size=size, device=device, repeats=repeats):
            progress.update(progress.tasks[0].id, advance=1, description=row["model"])
            rows.append(row)
            if json:
                emit(row)
    if not json:
        from rich.console import Console
        from rich.table import Table

        shown = Table("model", box=None, pad_edge=False)
        for column in ("parameters, M", f"GMACs at {size} px", "memory, MB", "median, s"):
            shown.add_column(column, justify="right")
        shown.add_column("")
        for row in rows:
            shown.add_row(
                row["model"],
                _number(row["parameters"] and row["parameters"] / 1e6, 2),
                _number(row["macs"] and row["macs"] / 1e9, 1),
                _number(row["peak_mb"], 0),
                _number(row["median_s"], 3),
                row.get("note", ""),
            )
        Console(highlight=False).print(shown)
    if any(row.get("note", "").startswith("ended") for row in rows):
        raise typer.Exit(1)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
