"""The commands and what they share: errors, exit codes, logging."""

import logging
import sys
from typing import Annotated

import typer

import moir
from moir.base.errors import MoirError
from moir.base.logs import log_warnings
from moir.cli import (
    adapt,
    bench,
    convert,
    data,
    degrade,
    evaluate,
    expert,
    export,
    inspect,
    models,
    restore,
    serve,
    train,
)
from moir.cli.output import say

app = typer.Typer(
    name="moir",
    help="Mixture-of-experts image restoration: any damaged picture in, the restored picture out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"moir {moir.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done, to stderr.")] = False,
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s: %(message)s")
    log_warnings()


app.command("restore")(restore.restore)
app.command("inspect")(inspect.inspect)
app.command("degrade")(degrade.degrade)
app.command("models")(models.models)
app.command("convert")(convert.convert)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("train")(train.train)
app.command("adapt")(adapt.adapt)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.add_typer(data.app, name="data")
app.add_typer(expert.app, name="expert")


def main() -> None:
    """Run the command line; the exit code is 0 only if everything asked for was done."""
    try:
        app()  # usage errors end here with exit code 2, Ctrl-C with 130
    except MoirError as error:
        say(f"Error: {error}")
        sys.exit(1)
