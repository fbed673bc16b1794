"""What commands print: JSON lines for machines on stdout, everything for people on stderr or as plain lines."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A line for people, on stderr."""
    stderr.print(text, markup=False, soft_wrap=True)


def emit(record: dict[str, Any]) -> None:
    """A record for machines: one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def bar(total: int, unit: str) -> Iterator[Progress]:
    """A progress bar on stderr, not shown where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        progress.add_task("", total=total)
        yield progress
