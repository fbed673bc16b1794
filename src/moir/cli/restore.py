"""``moir restore``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moir.base.errors import InvalidValueError
from moir.cli.options import (
    Device,
    Inputs,
    Jobs,
    Json,
    Model,
    Output,
    Overwrite,
    Precision,
    Recursive,
    Resume,
    Tile,
)  # fmt: skip
from moir.cli.output import bar, emit, say

if TYPE_CHECKING:
    from moir.restore import Restoration


def restore(
    inputs: Inputs,
    output: Output = None,
    model: Model = None,
    task: Annotated[
        str | None,
        typer.Option(help="Remove only this: denoise, derain, dehaze, desnow, deblur, lowlight, dejpeg; or several, "
                          "comma-separated. Default: whatever is found.", show_default=False),
    ] = None,
    strength: Annotated[float, typer.Option(help="How much of the change to apply, 0 to 1.")] = 1.0,
    device: Device = None,
    precision: Precision = None,
    tile: Tile = "auto",
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME_compare.png, input and result side by side.")
    ] = False,
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    jobs: Jobs = 1,
    resume: Resume = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Restore pictures.

    Noise, rain, haze, snow, blur, darkness and JPEG blocks are found and removed. Without --output the result lies
    beside the input, as NAME_restored.EXT. Nothing is replaced unless --overwrite is given. A file that cannot be
    restored does not stop the others; the exit code is then 1.
    """
    from moir.batch import Job, pair_outputs, run_jobs, select_inputs

    selection = select_inputs(inputs, recursive=recursive)
    work = pair_outputs(selection, output, overwrite=overwrite, resume=resume)
    for path in selection.skipped:
        say(f"skipped {path}: not a picture by its name")

    import torch

    import moir
    from moir.batch.compare import compare_path, write_comparison
    from moir.picture import read

    restorer = moir.load(model, device=device, precision=precision, tile=_tile(tile))
    tasks = [t.strip() for t in task.split(",")] if task else None
    if jobs > 1 and restorer.engine.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))

    failed = done = 0
    with bar(len(work), "pictures") as progress:
        line = progress.tasks[0].id

        def do(job: Job) -> dict[str, Any]:
            progress.update(line, description=job.input.name)
            picture = read(job.input)
            result = restorer(picture, task=tasks, strength=strength)
            result.save(job.output, overwrite=overwrite)
            if compare:
                write_comparison(picture, result.picture, compare_path(job.output), overwrite=overwrite or resume)
            report = result.report()
            if not json:
                say(f"{job.input} -> {job.output}: {_in_words(result)}")
            return report

        for record in run_jobs(work, do, workers=jobs, resume=resume):
            failed += "error" in record
            done += "error" not in record
            progress.advance(line)
            if json:
                emit(record)
            elif "error" in record:
                say(f"Error: {record['error']}")
            elif record.get("skipped"):
                say(f"{record['input']}: done before, {record['output']} exists")
    if len(work) > 1 and not json:
        say(f"{done} done, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _tile(word: str) -> int | str | None:
    if word in ("auto", "none"):
        return None if word == "none" else word
    if word.isdecimal():
        return int(word)
    raise InvalidValueError(f"tile {word!r} is not possible; give a number of pixels, 'auto' or 'none'")


def _in_words(result: "Restoration") -> str:
    found = [f for f in result.estimate if f.probability >= 0.5]
    what = ", ".join(f"{f.degree} {f.type} ({f.probability:.0%})" for f in found) or "no damage found"
    tiles = f", {result.tiles} tiles" if result.tiles > 1 else ""
    return f"{what}; {result.picture.width}x{result.picture.height} in {result.seconds:.2f} s{tiles}"
