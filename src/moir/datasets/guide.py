"""``docs/datasets.md``, written from the table: ``python -m moir.datasets.guide > docs/datasets.md``."""

import sys
from collections.abc import Iterable

from moir.datasets.entry import DataSet, Folders, Source
from moir.datasets.overlaps import OVERLAPS
from moir.datasets.table import CHAPTERS

_HEAD = """# Data sets: where to get them, and where to put them

`moir data check ROOT` says which of these sets are complete below a data root, which are missing, miscounted or
damaged, and whether test pictures are among the training pictures. `moir evaluate --data ROOT` and the recipes find
them there.

This page is written by `python -m moir.datasets.guide` from the table in `src/moir/datasets/table/`; change it there.

- The first layout given is the recommended one (that of MoCE-IR where it has one); the others are found too. Names of
  folders may be upper or lower case, and pictures may have any extension. `*` stands for any folder.
- A layout `A/{B,C}/` means inputs in `A/B` and targets (clean pictures) in `A/C`; `.` is the place itself.
- Nothing was downloaded while the table was made: layouts, counts and addresses come from the papers, the published
  repositories and users' scripts. What is doubtful beyond that is listed as *not verified*.
- None of these sets comes with moir. Licences are given where we know them; read the terms at the source.
"""


def markdown() -> str:
    """The page: every source with its sets, layouts, counts, pairing, licence, and what is not verified."""
    parts = [_HEAD]
    for chapter, sets in CHAPTERS.items():
        parts.append(f"## {chapter}\n")
        for source in dict.fromkeys(dataset.source for dataset in sets):
            own = [dataset for dataset in sets if dataset.source is source]
            parts += [_about(source, own), "\n".join(_line(dataset, own) for dataset in _one_per_family(own)) + "\n"]
    parts.append("## Known overlaps of training and test sets\n")
    lines = [f"- `{o.train}` with {_code(o.test)}: {o.text}" for o in OVERLAPS]
    return "\n".join([*parts, *lines]) + "\n"


def _about(source: Source, sets: list[DataSet]) -> str:
    lines = [f"**{source.title}**", f"Get it: {source.get}", f"Licence: {source.licence}"]
    rules = dict.fromkeys(layout.pairing.text for dataset in sets if dataset.paired for layout in dataset.layouts())
    if rules:
        lines.append(f"Pairs: {'; or '.join(rules)}")
    if source.unverified:
        lines.append(f"Not verified: {source.unverified}")
    return "  \n".join(lines) + "\n"


def _line(dataset: DataSet, own: list[DataSet]) -> str:
    name = f"`{dataset.name}`"
    if dataset.family:
        name += f" (and {_code(d.name for d in own if d.family == dataset.family and d is not dataset)})"
    count = f"{dataset.expected()} {'pairs' if dataset.paired else 'pictures'}" if dataset.counts else "count unknown"
    line = f"- {name}: {dataset.role}, {count}. `{next(dataset.layouts())}`"
    places, folders = dataset.places[1:], [_inside(below) for below in dataset.folders[1:]]
    if places:
        line += f"; or in {_code(places)}"
    return line + (f"; or there {_code(folders)}" if folders else "")


def _inside(below: Folders) -> str:
    return below.target if below.input is None else f"{{{below.input},{below.target}}}"


def _one_per_family(sets: Iterable[DataSet]) -> list[DataSet]:
    return list({dataset.family or dataset.name: dataset for dataset in reversed(list(sets))}.values())[::-1]


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


if __name__ == "__main__":
    sys.stdout.write(markdown())
