"""``moir restore``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moir.base.names import TASK_OF_TYPE
from moir.cli.options import (
    Device,
    Inputs,
    Json,
    Model,
    Overwrite,
    Precision,
    Recursive,
    Tile,
    tile_of,
)  # fmt: skip
from moir.cli.output import bar, emit, say
from moir.cli.startup import imports_to_keep

LISTED = 20
"""At most so many failures are listed again at the end."""


def restore(
    inputs: Inputs,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file (for one input) or a folder; default: beside the input. With --ray "
                                            "also a URL.", show_default=False),
    ] = None,
    model: Model = None,
    task: Annotated[
        str | None,
        typer.Option(help="Remove only this: denoise, derain, dehaze, desnow, deblur, lowlight, dejpeg; or several, "
                          "comma-separated. Default: whatever is found.", show_default=False),
    ] = None,
    strength: Annotated[float, typer.Option(help="How much of the change to apply, 0 to 1.")] = 1.0,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="A file that 'moir adapt' wrote. Several, for different pictures of one run: 'PATTERN=FILE' "
                          "each, by file name; the first that matches counts.", show_default=False),
    ] = None,
    device: Device = None,
    precision: Precision = None,
    tile: Tile = "auto",
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Restore each picture in up to eight orientations and take the mean: "
                                              "two to eight times slower, and a little better.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME_compare.png, input and result side by side.")
    ] = False,
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Pictures at a time. Default: all GPUs, or all cores if there are "
                                                 "many pictures.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped or killed: leave out what is done.")
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Where results are recorded, one JSON object per line. Default: FOLDER.manifest.jsonl beside "
                          "the --output folder.", show_default=False),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Restore on a Ray cluster: its address, 'auto' (the running one, or one of this machine) or "
                          "'local'. Folders may then be URLs (s3://, gs://, file://).", show_default=False),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Restore pictures and clips.

    Noise, rain, haze, snow, blur, darkness and JPEG blocks are found and removed. Without --output the result lies
    beside the input, as NAME_restored.EXT. Nothing is replaced unless --overwrite is given. A file that cannot be
    restored does not stop the others; the exit code is then 1.
    """
    with imports_to_keep():
        from moir.batch import Options, Settings, default_manifest, pair_outputs, restore_many, select_inputs

    tasks = tuple(t.strip() for t in task.split(",")) if task else None
    adapters = tuple(adapter or ())
    settings = Settings(model, tasks, strength, device, precision, tile_of(tile), compare, adapters, ensemble)
    account = _Account(json, tasks is not None)
    if ray is not None:
        from moir.batch.cluster import restore_on_cluster

        with bar(0, "pictures") as account.progress:
            restore_on_cluster(
                inputs, output, settings, account.take, address=ray, workers=jobs, manifest=manifest,
                recursive=recursive, resume=resume, overwrite=overwrite, on_total=account.expect, note=say,
            )  # fmt: skip
        account.close()
        return

    selection = select_inputs(inputs, recursive=recursive)
    work = pair_outputs(selection, output, overwrite=overwrite, resume=resume)
    for path in selection.skipped:
        say(f"skipped {path}: not a picture by its name")
    options = Options(
        workers=jobs,
        manifest=manifest or default_manifest(output, work),
        resume=resume,
        overwrite=overwrite,
        on_step=account.step,
    )
    with bar(len(work), "pictures") as account.progress:
        restore_many(work, settings, account.take, options)
    account.close(options.manifest)


class _Account:
    """What the user is told: a line or a JSON object per file, the bars, and the failures at the end."""

    def __init__(self, json: bool, told: bool) -> None:
        self.json, self.told = json, told
        self.progress: Any = None
        self.done = 0
        self.failed: list[str] = []
        self.failures = 0

    def take(self, record: dict[str, Any]) -> None:
        """A file is done, left out or has failed."""
        self.progress.update(self.progress.tasks[0].id, advance=1, description=Path(record["input"]).name)
        if "error" in record:
            self.failures += 1
            if len(self.failed) < LISTED:
                self.failed.append(f"{record['input']}: {record['error']}")
        else:
            self.done += 1
        if self.json:
            emit(record)
        elif "error" in record:
            say(f"Error: {record['error']}")
        elif record.get("skipped"):
            say(f"{record['input']}: done before, {record['output']} exists")
        else:
            say(f"{record['input']} -> {record['output']}: {_in_words(record, self.told)}")

    def expect(self, total: int) -> None:
        """How many files there are."""
        self.progress.update(self.progress.tasks[0].id, total=total)

    def step(self, name: str, done: int, total: int) -> None:
        """So many frames of a clip are done: a bar of its own, which tells the time that is left."""
        bars = {task.description: task.id for task in self.progress.tasks[1:]}
        number = bars.get(name)
        if number is None:
            number = self.progress.add_task(name, total=total)
        self.progress.update(number, completed=done, total=total, visible=done < total)

    def close(self, manifest: Path | None = None) -> None:
        """Sum up; the exit code is 1 if anything failed."""
        if self.done + self.failures > 1 and not self.json:
            say(f"{self.done} done, {self.failures} failed" + (f"; recorded in {manifest}" if manifest else ""))
        if self.failures > 1 and not self.json:
            say("Failed:")
            for line in self.failed:
                say(f"  {line}")
            if self.failures > len(self.failed):
                say(f"  and {self.failures - len(self.failed)} more" + (f", see {manifest}" if manifest else ""))
        if self.failures:
            raise typer.Exit(1)


def _in_words(record: dict[str, Any], told: bool) -> str:
    """What was found, and what was not acted on though it may be there, and the picture's size and time."""
    from moir.findings import SEEN, is_left_alone  # needs torch

    estimate = record.get("estimate", ())
    found = [f for f in estimate if f["probability"] >= SEEN]
    what = ", ".join(map(_named, found)) or "no damage found"
    is_left = is_left_alone(record.get("expert", ""))
    if is_left:
        what += ", left as it is"
    perhaps = [f for f in estimate if SEEN / 2 <= f["probability"] < SEEN]
    if not told and ((found and is_left) or (perhaps and not found)):
        tasks = ",".join(TASK_OF_TYPE[f["type"]] for f in found or perhaps)
        doubt = "not sure enough" if found else f"perhaps {', '.join(map(_named, perhaps))}"
        what += f"; {doubt}: try --task {tasks}"
    tiles = f", {record['tiles']} tiles" if record.get("tiles", 1) > 1 else ""
    frames = f", {record['frames']} frames in {len(record['shots'])} shots" if "frames" in record else ""
    return f"{what}; {record['width']}x{record['height']} in {record['seconds']:.2f} s{tiles}{frames}"


def _named(finding: dict[str, Any]) -> str:
    return f"{finding['degree']} {finding['type']} ({finding['probability']:.0%})"
