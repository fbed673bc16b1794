"""``moir data check``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moir.cli.options import Json
from moir.cli.output import bar, emit, say

if TYPE_CHECKING:
    from moir.datasets import Leak, Report, Survey

app = typer.Typer(
    help="Data sets: what is there, what is missing, and where to get it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LeakSearch(StrEnum):
    """How far to look for test pictures among the training pictures."""

    OFF = "off"
    EXACT = "exact"
    QUICK = "quick"
    FULL = "full"


@app.callback()
def _group() -> None:
    """Data sets: what is there, what is missing, and where to get it."""


@app.command("check")
def check(
    root: Annotated[Path, typer.Argument(help="The folder below which the data sets lie.", show_default=False)],
    need: Annotated[
        list[str] | None,
        typer.Option(help="Look only for this set, benchmark, group or training mixture (cbsd68_s25, aio3, aio3_train, "
                          "...), which must then be there; may be repeated.", show_default=False),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(help="A further folder of training pictures, with subfolders, to search for test pictures; may be "
                          "repeated.", show_default=False),
    ] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Read every picture; compare the sizes of pairs.")] = False,
    leaks: Annotated[
        LeakSearch,
        typer.Option(help="Look for test pictures in training sets: not at all, by equal files, also by looks among up "
                          "to 500 pictures of each set, or among all."),
    ] = LeakSearch.QUICK,
    json: Json = False,
) -> None:  # fmt: skip
    """Say which published data sets are complete, wrong, or missing, and whether test pictures leaked into training.

    Without --decode no picture is decoded, except for the thumbnails of the leak search (none with --leaks exact). The
    exit code is 0 if at least one set is there, nothing of what is there is wrong (another count than published,
    pictures without a partner, a missing half, damaged pictures), and nothing leaked. Missing sets are wrong only if
    --need names them.
    """
    from moir import datasets

    with bar(0, "pictures") as progress:
        line = progress.tasks[0].id

        def on_step(what: str, done: int, total: int) -> None:
            progress.update(line, description=what, completed=done, total=total)

        report = datasets.check(
            root, need=need or (), train=train or (), decode=decode, leaks=leaks.value, on_step=on_step
        )
    if json:
        for record in _records(report, root):
            emit(record)
    else:
        _show(report, root)
    if not report.fine:
        if all(found.status == "missing" for found in report.surveys):
            say(f"Error: none of the sets looked for is below {root}; is this the data root?")
        raise typer.Exit(1)


def _records(report: "Report", root: Path) -> list[dict[str, Any]]:
    records = [_record(found) for found in report.surveys]
    for leak in report.leaks:
        files = [[_below(train, root), _below(test, root), value] for train, test, value in leak.files]
        records.append(
            {"leak": leak.kind, "train": leak.train, "test": leak.test, "n": _pictures(leak), "files": files}
        )
    return records + [{"note": note} for note in report.notes]


def _record(found: "Survey") -> dict[str, Any]:
    dataset = found.dataset
    layout = found.layout or next(dataset.layouts())
    return {
        "set": dataset.name,
        "role": dataset.role,
        "status": found.status,
        "n": found.n,
        "expected": list(dataset.counts),
        "input": layout.input,
        "target": layout.target,
        "problems": found.problems,
        "get": dataset.source.get,
        "licence": dataset.source.licence,
    }


def _show(report: "Report", root: Path) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(highlight=False)
    where = Column("where", overflow="fold")
    shown = Table("set", "for", "status", "found", "published", where, box=None, pad_edge=False)
    there = [found for found in report.surveys if found.status != "missing"]
    for found in there:
        colour = "green" if found.fine else "red"
        dataset = found.dataset
        status = f"[{colour}]{found.status}[/]"
        shown.add_row(dataset.name, dataset.role, status, str(found.n), dataset.expected(), str(found.layout))
    if there:
        console.print(shown)
    for found in there:
        for problem in found.problems[:20]:
            console.print(f"{found.dataset.name}: {problem}", markup=False, soft_wrap=True)
        if len(found.problems) > 20:
            console.print(f"{found.dataset.name}: {len(found.problems) - 20} more problems (--json lists all)")
    missing = [found for found in report.surveys if found.status == "missing"]
    if missing:
        console.print(f"\n{len(missing)} sets are missing. Expected below {root} (other layouts: docs/datasets.md):")
        for line in _missing(missing):
            console.print(line, markup=False, soft_wrap=True)
    for leak in report.leaks:
        console.print(_in_words(leak, root), style="red", markup=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _missing(missing: "list[Survey]") -> list[str]:
    """One line for each set, or for each family of which several are missing, below the address of its source."""
    lines: list[str] = []
    by_source: dict[str, dict[str, list[Survey]]] = {}
    for found in missing:
        families = by_source.setdefault(f"{found.dataset.source.title}: {found.dataset.source.get}", {})
        families.setdefault(found.dataset.family or found.dataset.name, []).append(found)
    for source, families in by_source.items():
        lines.append(f"  {source}")
        for family, members in families.items():
            first = members[0].dataset
            name = first.name if len(members) == 1 else f"{family} ({len(members)} sets)"
            lines.append(f"    {name}: {next(first.layouts())} ({first.expected()})")
    return lines


def _in_words(leak: "Leak", root: Path) -> str:
    what = "the same files" if leak.kind == "exact" else "look-alikes"
    examples = "; ".join(f"{_below(train, root)} = {_below(test, root)}" for train, test, _ in leak.files[:3])
    return f"\nLEAK: {_pictures(leak)} pictures of {leak.test} are in {leak.train} ({what}): {examples}"


def _pictures(leak: "Leak") -> int:
    return len({test for _, test, _ in leak.files})


def _below(path: Path, root: Path) -> str:
    base = root.expanduser()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
