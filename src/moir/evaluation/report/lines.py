"""What stands in a comparison table, before it becomes Markdown or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moir.datasets.benchmarks import BENCHMARKS, GROUPS
from moir.evaluation import published
from moir.evaluation.records import Cost, Evaluation, Summary

METRICS = {"psnr": 2, "ssim": 3, "lpips": 3}
"""What is shown, in this order, with its number of decimals."""

LOWER_IS_BETTER = ("lpips",)
INPUT = "input (nothing done)"
WIDEST = 8
"""More settings than this are split by family over several tables."""

# The paper's damage parameters are not known: ours are stand-ins, so these pictures are not the paper's.
_OTHER_PICTURES = frozenset((*GROUPS["mixed"], *GROUPS["mixed_out"]))


@dataclass
class Cell:
    """One method on one setting.

    Attributes:
        values: By metric.
        n: Pictures the values are means of; None for published numbers.
        failed: Pictures that could not be scored.
        note: What to beware of.
        comparable: Scored by the table's protocol, on what we take for the same pictures.
        eligible: May be the best of its column: comparable, on the same number of pictures, and not suspect.
        best: The metrics in which no eligible cell of the column is better.
    """

    values: dict[str, float]
    n: int | None = None
    failed: int = 0
    note: str = ""
    comparable: bool = True
    eligible: bool = True
    best: set[str] = field(default_factory=set)


@dataclass
class Line:
    """One row of a table.

    Attributes:
        method: Its name.
        measured: Scored by us; otherwise published.
        protocol: How it was scored; None if not stated.
        cells: By setting.
        average: Over all settings of the table; None unless all are there.
        cost: Measured cost.
        parameters: Published parameter count, as printed.
        table: Short name of the published table.
        source: Where a published line stands, in a sentence; empty for ours.
    """

    method: str
    measured: bool
    protocol: str | None
    cells: dict[str, Cell]
    average: Cell | None = None
    cost: Cost | None = None
    parameters: str = ""
    table: str = ""
    source: str = ""


@dataclass
class Block:
    """One table: one protocol, some settings.

    Attributes:
        protocol: The protocol of the measured lines.
        counts: For each setting, the most pictures that a measured line has.
        metrics: The metrics that any line has.
        lines: The input, what was measured, what is published.
    """

    protocol: str
    counts: dict[str, int]
    metrics: tuple[str, ...]
    lines: list[Line]

    @property
    def has_average(self) -> bool:
        """Whether any line has an average."""
        return any(line.average for line in self.lines)


def blocks(evaluations: Sequence[Evaluation], *, with_published: bool = True) -> list[Block]:
    """Arrange evaluations into tables: one per protocol, and per family of settings where there are many.

    Args:
        evaluations: Of any methods, settings and protocols.
        with_published: Add the papers' numbers for the same settings.
    """
    result = []
    for protocol in dict.fromkeys(one.protocol for one in evaluations):
        here = [one for one in evaluations if one.protocol == protocol]
        # A setting that no method could be run on has no column; the long table says why.
        settings = list(dict.fromkeys(s.setting for one in here for s in one.summaries if s.error is None))
        for part in _parts(settings):
            result.append(_block(protocol, here, part, with_published))
    return result


def whole(setting: str, n: int) -> bool:
    """Whether ``n`` pictures are the whole of a benchmark, as far as its published size is known."""
    return setting in BENCHMARKS and n in BENCHMARKS[setting].dataset.counts


def _block(protocol: str, evaluations: Sequence[Evaluation], settings: list[str], with_published: bool) -> Block:
    counts = {setting: max(s.n for s in _summaries(evaluations, setting)) for setting in settings}
    lines = [_measured(one, counts) for one in evaluations if any(s.setting in counts for s in one.summaries)]
    if (first := _input(protocol, evaluations, counts)).cells:
        lines.insert(0, first)
    if with_published:
        lines += _published(protocol, counts)
    for line in lines:
        if line.average is None:
            line.average = _average(line, settings)
    for column in [[line.cells.get(setting) for line in lines] for setting in settings]:
        _mark_best(column)
    _mark_best([line.average for line in lines])
    metrics = tuple(
        name for name in METRICS if any(name in cell.values for line in lines for cell in line.cells.values())
    )
    return Block(protocol, counts, metrics, lines)


def _parts(settings: list[str]) -> list[list[str]]:
    if len(settings) <= WIDEST:
        return [settings] if settings else []
    parts: dict[str, list[str]] = {}
    for setting in settings:
        parts.setdefault(_family(setting), []).append(setting)
    return list(parts.values())


def _family(setting: str) -> str:
    families = ("mixed_out", "mixed", "cdd11", "sr_2", "sr_3", "sr_4", "lr4_noise30", "lr4_jpeg30")
    return next((name for name in families if setting in GROUPS[name]), "")


def _summaries(evaluations: Sequence[Evaluation], setting: str) -> list[Summary]:
    return [s for one in evaluations for s in one.summaries if s.setting == setting and s.error is None]


def _measured(one: Evaluation, counts: dict[str, int]) -> Line:
    cells = {
        summary.setting: Cell(
            {name: value for name, value in summary.means.items() if name in METRICS},
            summary.n,
            summary.failed,
            eligible=summary.n == counts[summary.setting],
        )
        for summary in one.summaries
        if summary.setting in counts and summary.error is None
    }
    return Line(one.method, True, one.protocol, cells, cost=one.cost)


def _input(protocol: str, evaluations: Sequence[Evaluation], counts: dict[str, int]) -> Line:
    cells = {}
    for setting, n in counts.items():
        for summary in _summaries(evaluations, setting):
            values = {name: summary.means[f"input_{name}"] for name in METRICS if f"input_{name}" in summary.means}
            if values and summary.n == n:
                cells[setting] = Cell(values, n)
                break
    return Line(INPUT, True, protocol, cells)


def _published(protocol: str, counts: dict[str, int]) -> list[Line]:
    group = next((name for name, members in GROUPS.items() if set(members) == set(counts)), None)
    lines: dict[tuple[str, str, str], Line] = {}
    for row in published.every_row():
        if row.setting not in counts and row.setting != group:
            continue
        source = _source(row)
        line = lines.setdefault(
            (row.method, row.table.name, source),
            Line(row.method, False, row.protocol, {}, table=row.table.name, source=source),
        )
        line.parameters = line.parameters or row.parameters
        values = {"psnr": row.psnr} | ({} if row.ssim is None else {"ssim": row.ssim})
        needed = counts if row.setting == group else {row.setting: counts[row.setting]}
        comparable = row.protocol == protocol and not _OTHER_PICTURES.intersection(needed)
        eligible = comparable and not row.suspect and all(whole(name, n) for name, n in needed.items())
        cell = Cell(values, note=row.note, comparable=comparable, eligible=eligible)
        if row.setting == group:
            line.average = cell
        else:
            line.cells[row.setting] = cell
    return list(lines.values())


def _source(row: published.PublishedRow) -> str:
    parts = [f"{row.table.source}, {row.table.title}"]
    if row.read:
        parts.append(f"read in: {row.read}")
    if row.table.caution:
        parts.append(row.table.caution)
    if row.table.link:
        parts.append(row.table.link)
    return "; ".join(parts)


def _average(line: Line, settings: list[str]) -> Cell | None:
    if len(settings) < 2 or any(setting not in line.cells for setting in settings):
        return None
    cells = [line.cells[setting] for setting in settings]
    shared = [name for name in METRICS if all(name in cell.values for cell in cells)]
    values = {name: sum(cell.values[name] for cell in cells) / len(cells) for name in shared}
    # Of suspect numbers no average of ours is made; the paper's own, where printed, is shown.
    if not values or any("suspect:" in cell.note for cell in cells):
        return None
    return Cell(values, comparable=all(c.comparable for c in cells), eligible=all(c.eligible for c in cells))


def _mark_best(column: Sequence[Cell | None]) -> None:
    cells = [cell for cell in column if cell is not None and cell.eligible]
    for metric, decimals in METRICS.items():
        # As printed, so that of two equal numbers in a column not only one is bold.
        values = {id(cell): round(cell.values[metric], decimals) for cell in cells if metric in cell.values}
        if len(values) < 2:
            continue
        best = (min if metric in LOWER_IS_BETTER else max)(values.values())
        for cell in cells:
            if values.get(id(cell)) == best:
                cell.best.add(metric)
