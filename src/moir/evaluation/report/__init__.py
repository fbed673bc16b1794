"""Reports of an evaluation: tables, plots and picture sheets, from records alone."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from moir.base.errors import InvalidValueError, MissingExtraError, OutputConflictError
from moir.base.files import check_absent, write_text
from moir.evaluation.records import Evaluation
from moir.evaluation.report.details import long_markdown
from moir.evaluation.report.intervals import mean_interval
from moir.evaluation.report.plots import draw_setting
from moir.evaluation.report.sheets import SheetRow, draw_sheet
from moir.evaluation.report.tables import latex, markdown

__all__ = [
    "SheetRow",
    "draw_setting",
    "draw_sheet",
    "latex",
    "long_markdown",
    "markdown",
    "mean_interval",
    "write_reports",
]

log = logging.getLogger(__name__)


def write_reports(
    evaluations: Sequence[Evaluation],
    folder: Path,
    *,
    pictures: Callable[[str], Iterable[SheetRow]] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``table.md``, ``table.tex``, ``plots/SETTING.png`` and ``sheets/SETTING.jpg``.

    The tables come first, so that a picture that cannot be drawn costs no number. Plots are left out, with a warning
    in the log, where matplotlib is not installed or a setting has no scored picture; sheets where ``pictures`` gives
    none.

    Args:
        evaluations: One at least.
        folder: Where to write; made if missing.
        pictures: Gives a few rows of pictures for the sheet of a setting; None for no sheets.
        overwrite: Replace files that are there.

    Returns:
        The files that were written.

    Raises:
        InvalidValueError: There is no evaluation.
        OutputConflictError: Two settings would be written to one file.
        OutputExistsError: A file is there already and ``overwrite`` is false; nothing was written then.
    """
    if not evaluations:
        raise InvalidValueError("there is no evaluation to report on")
    folder = Path(folder)
    settings = list(dict.fromkeys(summary.setting for one in evaluations for summary in one.summaries))
    names = _file_names(settings)
    table, tex = folder / "table.md", folder / "table.tex"
    plots = {setting: folder / "plots" / f"{name}.png" for setting, name in names.items()}
    sheets = {setting: folder / "sheets" / f"{name}.jpg" for setting, name in names.items()}
    for path in (table, tex, *plots.values(), *(sheets.values() if pictures else ())):
        check_absent(path, overwrite=overwrite)
    write_text(table, markdown(evaluations) + "\n" + long_markdown(evaluations), overwrite=overwrite)
    write_text(tex, latex(evaluations), overwrite=overwrite)
    written = [table, tex]
    for setting, path in sheets.items() if pictures else ():
        rows = list(pictures(setting)) if pictures else []
        if rows:
            written.append(draw_sheet(setting, rows, path, evaluations=evaluations, overwrite=overwrite))
    for setting, path in plots.items():
        try:
            written.append(draw_setting(evaluations, setting, path, overwrite=overwrite))
        except MissingExtraError as error:
            log.warning("no plots: %s", error)
            break
        except InvalidValueError as error:
            log.warning("%s", error)
    return written


def _file_names(settings: Sequence[str]) -> dict[str, str]:
    names = {setting: re.sub(r"[^A-Za-z0-9._-]+", "_", setting).strip(".") or "_" for setting in settings}
    for setting, name in names.items():
        others = [other for other in settings if other != setting and names[other].lower() == name.lower()]
        if others:
            raise OutputConflictError(f"settings {setting!r} and {others[0]!r} would both be written to {name!r}")
    return names
