"""Pictures of a run: its curves, and which experts it takes for which damage."""

import json
import logging
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moir.base.errors import MissingExtraError
from moir.evaluation.report.figure import new_figure
from moir.training.usage import Usage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

NOT_LOSSES = ("step", "lr", "seconds")
Record = dict[str, float]


def draw_curves(run: Path) -> None:
    """Draw ``curves.png`` of a run: training loss, balance loss, learning rate, validation PSNR.

    Args:
        run: The folder of a run, with ``log.jsonl`` and perhaps ``validation.jsonl``.
    """
    steps, scores = read_log(run / "log.jsonl"), read_log(run / "validation.jsonl")
    figure = _figure(10, 6.5)
    if figure is None or not steps:
        return
    x = [record["step"] for record in steps]
    terms = list(dict.fromkeys(name for record in steps for name in record if name not in NOT_LOSSES))
    # One letter for each panel; where there is no balance loss, validation takes its place.
    panels = figure.subplot_mosaic("lb;rq" if "balance" in terms else "lq;rq")
    axes = {"loss": panels["l"], "rate": panels["r"], "quality": panels["q"]}
    if "balance" in terms:
        axes["balance"] = panels["b"]
    loss, rate, quality = axes["loss"], axes["rate"], axes["quality"]
    total = [sum(record.get(name, 0) for name in terms) for record in steps]
    _line(loss, x, total, "total")
    for name in terms:
        if name not in ("balance", "total") and len(terms) > 1:
            _line(loss, x, [record.get(name) for record in steps], name)
    loss.set(title="training loss (weighted terms)", yscale="log" if min(total) > 0 else "linear")
    loss.legend(fontsize=8)
    if "balance" in terms:
        _line(axes["balance"], x, [record.get("balance") for record in steps], "balance")
        axes["balance"].set(title="balance loss (weighted)")
    rate.plot(x, [record["lr"] for record in steps])
    rate.set(title="learning rate")
    for name in dict.fromkeys(name for record in scores for name in record if name != "step"):
        # The mean says how the run goes; the damages lie around it.
        style: dict[str, Any] = {"color": "black", "linewidth": 2} if name == "mean" else {"linewidth": 1}
        values = [(record["step"], record[name]) for record in scores if name in record]
        quality.plot(*zip(*values, strict=True), label=name, marker=".", **style)
    quality.set(title="validation PSNR, dB" if scores else "no validation")
    if scores:
        quality.legend(fontsize=6, ncols=2, framealpha=0.6)
    for axis in axes.values():
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.savefig(run / "curves.png")


def draw_usage(usage: Usage, path: Path) -> None:
    """Draw the allocation of tasks to experts: for each group, decoder blocks by experts.

    Args:
        usage: The counts.
        path: The PNG to write.
    """
    seen = [(group, n) for group, n in zip(usage.groups, usage.pictures, strict=True) if n]
    rows = len(usage.routers)
    figure = _figure(1.2 + 1.7 * len(seen), 1.6 + 0.26 * rows)
    if figure is None or not seen:
        return
    plots = figure.subplots(1, len(seen), squeeze=False)[0]
    for number, ((group, n), axes) in enumerate(zip(seen, plots, strict=True)):
        shares = usage.shares(group)
        image = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_title(f"{group}\n{n} pictures", fontsize=9)
        axes.set_xticks(range(shares.shape[1]))
        axes.set_yticks(range(rows), list(usage.routers) if number == 0 else [""] * rows, fontsize=7)
    plots[0].set_xlabel("expert, simplest first", fontsize=8)
    figure.colorbar(image, ax=list(plots), label="share of pictures")
    figure.suptitle(
        f"experts taken, up to step {usage.step} (decoder blocks in the order in which they run)", fontsize=9
    )
    figure.savefig(path)


def _figure(width: float, height: float) -> "Figure | None":
    """An empty figure, or None: a long run must not end because a picture of it cannot be drawn."""
    try:
        return new_figure(width, height)
    except MissingExtraError as error:
        log.warning("no plots: %s", error)
        return None


def _line(axes: "Axes", x: list[float], values: Iterable[float | None], label: str) -> None:
    """The values, faint, and their moving mean."""
    points = [(step, value) for step, value in zip(x, values, strict=True) if value is not None]
    window = max(1, len(points) // 25)
    sums = [0.0, *accumulate(value for _, value in points)]
    means = [(sums[i] - sums[max(0, i - window)]) / min(window, i) for i in range(1, len(sums))]
    (line,) = axes.plot([step for step, _ in points], means, label=label)
    if window > 1:
        axes.plot(*zip(*points, strict=True), color=line.get_color(), alpha=0.25, linewidth=0.7)


def read_log(path: Path) -> list[Record]:
    """The records of a log; where a run was resumed, the steps that were done again count."""
    records: list[Record] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # a run that was killed may leave half a line
            continue
        while records and records[-1]["step"] >= record["step"]:
            records.pop()
        records.append(record)
    return records
