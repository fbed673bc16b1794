"""``moir degrade``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moir.cli.options import Inputs, Json, Output, Overwrite, Recursive
from moir.cli.output import bar, emit, say


def degrade(
    inputs: Inputs,
    spec: Annotated[
        str,
        typer.Option("--with", help="What to do: 'rain=heavy,noise=25', 'noise:poisson=light', or a mix of the "
                                    "UniRestorer paper such as 'LL-H-N-R=medium'.", show_default=False),
    ],
    output: Output = None,
    snow_masks: Annotated[
        Path | None, typer.Option("--snow-masks", help="Folder of mask pictures for snow:mask, such as Snow100K's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and file name give the same damage.")] = 0,
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Damage pictures on purpose, and record every parameter.

    Degrees are light, medium and heavy; 'inside' and 'outside' are the published in- and out-of-distribution ranges; a
    number is the severity itself (noise: sigma in 8-bit levels; jpeg: quality; ...). The parameters are written beside
    each result, as NAME.json.
    """
    from moir import degrade as damage
    from moir.batch import Job, pair_outputs, run_jobs, select_inputs

    request = damage.parse(spec)
    selection = select_inputs(inputs, recursive=recursive)
    work = pair_outputs(selection, output, tag="degraded", overwrite=overwrite)
    for path in selection.skipped:
        say(f"skipped {path}: not a picture by its name")

    from moir.batch.damage import damage_file

    def do(job: Job) -> dict[str, Any]:
        return damage_file(job.input, job.output, request, seed, snow_masks=snow_masks, overwrite=overwrite)

    failed = 0
    with bar(len(work), "pictures") as progress:
        for record in run_jobs(work, do):
            progress.advance(progress.tasks[0].id)
            failed += "error" in record
            if json:
                emit(record)
            elif "error" in record:
                say(f"Error: {record['error']}")
            else:
                what = ", ".join(f"{p['type']} ({p['kind']})" for p in record["damage"])
                say(f"{record['input']} -> {record['output']}: {what}")
    if failed:
        raise typer.Exit(1)
