"""The numbers that the papers print, to stand beside ours.

Three files, kept as data: ``numbers.csv`` (one number per row), ``tables.csv`` (where each table stands, and what to
beware of), ``costs.csv`` (the overhead tables). Numbers are copied as printed, misprints too; where one does not fit
its neighbours, or an average does not recompute, the note says so and begins with ``suspect``.

PSNR of different protocols can differ by a decibel (Y against RGB), SSIM of different protocols is never comparable:
read :attr:`PublishedRow.protocol` before comparing. The number of pictures is printed nowhere; the numbers are of the
whole set.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from moir.base.names import check_name

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PublishedTable:
    """Where numbers stand.

    Attributes:
        name: Our short name of it.
        source: The paper or page.
        title: Which table of it.
        link: Its address; empty for a table collected from several papers, whose rows say where they were read.
        caution: What to beware of; may be empty.
    """

    name: str
    source: str
    title: str
    link: str
    caution: str


@dataclass(frozen=True)
class PublishedRow:
    """One published number.

    Attributes:
        method: The method, as the paper calls it. ``(3D)`` and ``(5D)`` tell apart two rows of one name in one table,
            by the number of tasks they were trained for.
        setting: Our name of the benchmark, or of the group whose average it is; the paper's name if we have neither.
        printed: The setting as the paper calls it.
        psnr: dB.
        ssim: None where none is printed.
        protocol: Our name of the protocol it was scored with; None if that is not known.
        table: Where it stands.
        parameters: As printed (``25.4M``); empty if not.
        read: Where it was read, if not in the paper itself.
        note: What to beware of in this number; may be empty.
    """

    method: str
    setting: str
    printed: str
    psnr: float
    ssim: float | None
    protocol: str | None
    table: PublishedTable
    parameters: str
    read: str
    note: str

    @property
    def suspect(self) -> bool:
        """Whether the number, as printed, does not fit the numbers around it."""
        return "suspect:" in self.note


@dataclass(frozen=True)
class PublishedCost:
    """One published row of an overhead table.

    Attributes:
        method: The method.
        parameters: As printed.
        gflops: As printed; papers count multiply-accumulates under this name as often as not.
        memory_mb: GPU memory, MB.
        seconds: Per picture.
        conditions: Size of the picture and hardware, as far as stated.
        source: Where it stands.
    """

    method: str
    parameters: str
    gflops: float | None
    memory_mb: float | None
    seconds: float | None
    conditions: str
    source: str


def rows(setting: str) -> list[PublishedRow]:
    """Return every published number of one setting, in the order of the papers' tables.

    Args:
        setting: A benchmark (``rain100l``), a group for its average (``aio3``), or a paper's own name of a setting
            that is no benchmark of ours (``BSD68``); see :func:`settings`.

    Returns:
        The rows; none if nothing is published about it.

    Examples:
        >>> [row.psnr for row in rows("aio3") if row.method == "MoCE-IR"]
        [32.73]
        >>> rows("kodak24_s15")
        []
    """
    return [row for row in every_row() if row.setting == setting]


@cache
def every_row() -> tuple[PublishedRow, ...]:
    """Return all published numbers, in the order of the papers' tables."""
    known = tables()
    return tuple(
        PublishedRow(
            method=row["method"],
            setting=row["setting"] or row["printed"],
            printed=row["printed"],
            psnr=float(row["psnr"]),
            ssim=_number(row["ssim"]),
            protocol=row["protocol"] or None,
            table=known[check_name(row["table"], known, "published table")],
            parameters=row["parameters"],
            read=row["read"],
            note=row["note"],
        )
        for row in _read("numbers.csv")
    )


def settings() -> tuple[str, ...]:
    """Return every setting that has published numbers, ours and the papers' own."""
    return tuple(dict.fromkeys(row.setting for row in every_row()))


@cache
def tables() -> dict[str, PublishedTable]:
    """Return the tables by our short name."""
    return {
        row["table"]: PublishedTable(row["table"], row["source"], row["title"], row["link"], row["caution"])
        for row in _read("tables.csv")
    }


@cache
def costs() -> tuple[PublishedCost, ...]:
    """Return the rows of the published overhead tables."""
    return tuple(
        PublishedCost(
            method=row["method"],
            parameters=row["parameters"],
            gflops=_number(row["gflops"]),
            memory_mb=_number(row["memory_mb"]),
            seconds=_number(row["seconds"]),
            conditions=row["conditions"],
            source=row["source"],
        )
        for row in _read("costs.csv")
    )


def _read(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> float | None:
    return float(text) if text else None
