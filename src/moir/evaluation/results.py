"""The files of an evaluation that are the same whenever the same thing is scored: JSON and CSV, no times, no dates."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moir.base.files import write_text
from moir.evaluation.records import Evaluation, Summary

DIGITS = 6
"""Decimals in the files: a millionth of a decibel."""

_COLUMNS = ("psnr", "ssim", "input_psnr", "lpips")


def results(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """``{setting: {"psnr", "ssim", "n", ...}}`` for one method, ``{method: {setting: ...}}`` for several."""
    tables = {e.method: {s.setting: summary(s, e.protocol) for s in e.summaries} for e in evaluations}
    return next(iter(tables.values())) if len(tables) == 1 else tables


def summary(found: Summary, protocol: str) -> dict[str, Any]:
    """One setting: the means, the number of pictures, and what the numbers are of.

    Keys: ``psnr``, ``ssim``, ``n``, ``failed``, ``protocol``, ``source``, ``made``; where there are inputs of the
    target's size ``input_psnr`` and ``gain`` (dB); ``lpips`` if asked for; ``intervals`` by metric; ``limited``; and
    ``error`` if the setting could not be run.
    """
    record: dict[str, Any] = {name: round(value, DIGITS) for name, value in found.means.items()}
    if "input_psnr" in found.means:
        record["gain"] = round(found.means["psnr"] - found.means["input_psnr"], DIGITS)
    record |= {"n": found.n, "failed": found.failed, "protocol": protocol, "source": found.source, "made": found.made}
    record["intervals"] = {k: [round(low, DIGITS), round(high, DIGITS)] for k, (low, high) in found.intervals.items()}
    if found.limited:
        record["limited"] = True
    if found.error is not None:
        record["error"] = found.error
    return record


def images_csv(evaluations: Sequence[Evaluation]) -> str:
    """One line for each method and picture, failures too, with their reason."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    present = [c for c in _COLUMNS if any(c in s.metrics for e in evaluations for s in e.images)]
    rows.writerow(["method", "protocol", "setting", "image", "width", "height", *present, "error"])
    for e in evaluations:
        for s in e.images:
            values = [f"{s.metrics[c]:.{DIGITS}f}" if c in s.metrics else "" for c in present]
            rows.writerow([e.method, e.protocol, s.setting, s.image, s.width, s.height, *values, s.error or ""])
    return file.getvalue()


def write_results(evaluations: Sequence[Evaluation], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``results.json``, ``images.csv`` and ``provenance.json``, each whole or not at all.

    Raises:
        OutputExistsError: One is there already and ``overwrite`` is false.
    """
    provenance = {e.method: e.provenance for e in evaluations}
    texts = {
        "images.csv": images_csv(evaluations),
        "provenance.json": _json(provenance),
        "results.json": _json(results(evaluations)),
    }
    for name, text in texts.items():
        write_text(folder / name, text, overwrite=overwrite)
    return [folder / name for name in texts]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
