"""One plot per setting: what each method gains on each picture, and how sure its mean is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moir.base.errors import InvalidValueError
from moir.base.files import atomic_path
from moir.evaluation.records import Evaluation, ImageScore
from moir.evaluation.report.figure import new_figure
from moir.evaluation.report.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOUR, _FAINT, _DARK = "#3b6ea5", "#9fb8d3", "#1f2d3d"


def draw_setting(evaluations: Sequence[Evaluation], setting: str, path: Path, *, overwrite: bool = False) -> Path:
    """Draw one setting: left, per-picture PSNR gain over the input (PSNR where there is no input); right, mean PSNR.

    Methods are sorted by their mean PSNR, the best on top. The bars on the right are 95% intervals of the mean over
    pictures. Evaluations under several protocols are drawn as methods of their own.

    Args:
        evaluations: All of them; those without the setting are left out.
        setting: Its name.
        path: The PNG to write.
        overwrite: Replace a file that is there.

    Returns:
        The path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InvalidValueError: No method has a scored picture of the setting with a finite PSNR.
    """
    several = len({one.protocol for one in evaluations}) > 1
    scores = {
        f"{one.method} ({one.protocol})" if several else one.method: found
        for one in evaluations
        if (found := _finite(one, setting))
    }
    if not scores:
        raise InvalidValueError(f"nothing to draw: no method has a finite PSNR on {setting!r}")
    order = sorted(scores, key=lambda name: (np.mean([s.metrics["psnr"] for s in scores[name]]), name))
    figure = new_figure(11, 1.9 + 0.46 * len(order))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
    _distribution(left, [scores[name] for name in order])
    _means(right, [scores[name] for name in order])
    counts = {len(found) for found in scores.values()}
    labels = [_label(name, len(scores[name]) if len(counts) > 1 else None) for name in order]
    left.set_yticks(range(len(order)), labels)
    left.set_ylim(-0.6, len(order) - 0.4)
    n = f"n = {min(counts)}" if len(counts) == 1 else f"n = {min(counts)} to {max(counts)}"
    protocols = ", ".join(dict.fromkeys(one.protocol for one in evaluations))
    figure.suptitle(_plain(f"{setting}   ({n}, protocol {protocols})"), fontsize=12, color=_DARK)
    with atomic_path(path, overwrite=overwrite) as temporary:
        # Without the version in the file, the same numbers give the same bytes for longer.
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def _finite(one: Evaluation, setting: str) -> list[ImageScore]:
    return [s for s in one.images if s.setting == setting and np.isfinite(s.metrics.get("psnr", np.nan))]


def _distribution(axes: "Axes", columns: Sequence[list[ImageScore]]) -> None:
    gain = all(np.isfinite(s.metrics.get("input_psnr", np.nan)) for scores in columns for s in scores)
    offset = "input_psnr" if gain else None
    jitter = np.random.default_rng(0)  # only spreads the points; the same every time
    for place, scores in enumerate(columns):
        values = np.array([s.metrics["psnr"] - (s.metrics[offset] if offset else 0.0) for s in scores])
        height = place + jitter.uniform(-0.22, 0.22, len(values))
        axes.scatter(values, height, s=9, color=_FAINT, alpha=0.7, linewidths=0, zorder=2)
        axes.boxplot(
            values, positions=[place], orientation="horizontal", widths=0.5, showfliers=False, manage_ticks=False,
            boxprops={"color": _COLOUR}, whiskerprops={"color": _COLOUR}, capprops={"color": _COLOUR},
            medianprops={"color": _DARK, "linewidth": 2}, zorder=3,
        )  # fmt: skip
    if gain:
        axes.axvline(0, color="#b03a2e", linewidth=1, zorder=1)
    what = "PSNR gain over the input, dB" if gain else "PSNR, dB"
    axes.set_title(f"{what}, per picture", fontsize=10)
    axes.set_xlabel(f"{what} (points: pictures; box: quartiles, median)", fontsize=9)
    _tidy(axes)


def _means(axes: "Axes", columns: Sequence[list[ImageScore]]) -> None:
    for place, scores in enumerate(columns):
        values = [s.metrics["psnr"] for s in scores]
        mean = float(np.mean(values))
        if len(values) > 1:
            low, high = mean_interval(values)
            axes.plot([low, high], [place, place], color=_COLOUR, linewidth=2.5, solid_capstyle="butt", zorder=2)
        axes.plot([mean], [place], "o", color=_DARK, markersize=5, zorder=3)
        axes.annotate(f"{mean:.2f}", (mean, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_title("mean PSNR and 95% interval", fontsize=10)
    axes.set_xlabel("PSNR, dB", fontsize=9)
    axes.margins(x=0.12)
    _tidy(axes)


def _tidy(axes: "Axes") -> None:
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _label(name: str, n: int | None, longest: int = 34) -> str:
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    text = short if n is None else f"{short}\n(n = {n})"
    return _plain(text)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would set what is between two dollars as a formula
