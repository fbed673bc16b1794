"""``moir inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from moir.cli.options import Device, Inputs, Json, Model, Overwrite, Recursive
from moir.cli.output import bar, emit, say
from moir.cli.startup import imports_to_keep


def inspect(
    inputs: Inputs,
    model: Model = None,
    device: Device = None,
    map_: Annotated[
        Path | None,
        typer.Option("--map", help="Folder for maps of the damage: NAME_map.png, which cell shows what.",
                     show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Say what is wrong with pictures, how badly and how sure that is, and which expert would restore them.

    Nothing is restored. A file that cannot be read does not stop the others; the exit code is then 1.
    """
    with imports_to_keep():
        from moir.base.errors import MoirError
        from moir.batch import select_inputs
        from moir.batch.inspecting import inspect_file
        from moir.restore import load

    selection = select_inputs(inputs, recursive=recursive)
    for path in selection.skipped:
        say(f"skipped {path}: not a picture by its name")
    restorer = load(model, device=device)
    failed = 0
    with bar(len(selection.files), "pictures") as progress:
        for path, relative in selection.files:
            target = None if map_ is None else map_ / relative.with_name(f"{relative.stem}_map.png")
            try:
                found = inspect_file(restorer, path, target, overwrite=overwrite)
            except MoirError as error:
                failed += 1
                if json:
                    emit({"input": str(path), "error": str(error)})
                else:
                    say(f"Error: {error}")
            else:
                if json:
                    emit({"input": str(path), **found.report()})
                else:
                    say(f"{path}: {found.sentence()}")
                    for finding in found.estimate:
                        filled = round(20 * finding.probability)
                        blocks = "█" * filled + "·" * (20 - filled)
                        say(f"  {finding.type:<9}{blocks} {finding.probability:4.0%}  {finding.degree}")
                    say(f"  expert: {found.expert} ({found.granularity})")
            progress.advance(progress.tasks[0].id)
    if failed:
        raise typer.Exit(1)
