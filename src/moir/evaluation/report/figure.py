"""Figures that are drawn to files only: no window system, nothing global."""

from typing import TYPE_CHECKING

from moir.base.extras import needs_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure.

    Args:
        width, height: Inches, at 110 dots each.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("train", "plots need matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
