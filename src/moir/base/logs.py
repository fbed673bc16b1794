"""Warnings for people: one line in the log, without the place in the code that Python would print."""

import logging
import warnings
from typing import TextIO

log = logging.getLogger("moir.warnings")


def log_warnings() -> None:
    """From now on warnings of this process are logged by their message alone; for programs, not for libraries.

    Examples:
        >>> import unittest
        >>> with warnings.catch_warnings(), unittest.TestCase().assertLogs("moir.warnings") as logged:
        ...     log_warnings()
        ...     warnings.warn("a.gif has 2 frames", UserWarning)
        >>> logged.output
        ['WARNING:moir.warnings:a.gif has 2 frames']
    """
    warnings.showwarning = _shown


def _shown(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if file is not None:
        file.write(warnings.formatwarning(message, category, filename, lineno, line))
    else:
        log.warning("%s", message)
