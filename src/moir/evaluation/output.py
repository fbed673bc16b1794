"""The folder of an evaluation: pictures for the sheets on the way, results, costs and reports at the end."""

import dataclasses
import datetime
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from moir.base.errors import InvalidValueError, MoirError, OutputExistsError
from moir.base.files import check_absent, write_text
from moir.evaluation.methods import Method, Predictions
from moir.evaluation.records import Evaluation
from moir.evaluation.report import SheetRow, write_reports
from moir.evaluation.results import write_results
from moir.evaluation.run import Step
from moir.picture import from_tensor, read, write

SHOWN = 2
"""Pictures of each setting that are kept for the sheet: the first ones."""

JOURNAL = "records.jsonl"
"""The file of scores as they are made; see :class:`moir.evaluation.journal.Journal`."""

FILES = ("images.csv", "provenance.json", "results.json", "run.json", "table.md", "table.tex")

COST_SIZE = (256, 256)
"""Height and width of the picture on which costs are measured, pixels."""


class Keeper:
    """Keeps the first pictures of each setting as 8-bit PNG, below ``pictures/SETTING/IMAGE/``, for the sheets.

    They are files, so that a run that was interrupted, or goes on, still has them at the end. Call it with every step.
    """

    def __init__(self, folder: Path, shown: int = SHOWN) -> None:
        self.folder, self.shown = folder / "pictures", shown
        self.began = time.time()
        self.images: dict[str, list[str]] = {}

    def __call__(self, step: Step) -> None:
        """Keep the pictures of a step, if it is among the first of its setting."""
        images = self.images.setdefault(step.setting.name, [])
        image = step.score.image
        if step.score.error is not None or (image not in images and len(images) >= self.shown):
            return
        if image not in images:
            images.append(image)
        if step.sample is None or step.restored is None:
            return
        for name, pixels in (
            ("input", step.sample.input),
            ("target", step.sample.target),
            (f"method {step.method}", step.restored),
        ):
            write(from_tensor(pixels), self.path(step.setting.name, image, name), overwrite=True)

    def path(self, setting: str, image: str, name: str) -> Path:
        """Where a picture lies."""
        return self.folder / _file_name(setting) / _file_name(image) / f"{_file_name(name)}.png"

    def rows(self, setting: str, methods: Sequence[str]) -> Iterator[SheetRow]:
        """What is there for the sheet of a setting."""
        for image in self.images.get(setting, []):
            files = {name: self.path(setting, image, f"method {name}") for name in methods}
            outputs = {name: read(path).rgb for name, path in files.items() if path.exists()}
            ends = [self.path(setting, image, name) for name in ("input", "target")]
            if outputs and all(path.exists() for path in ends):
                source, target = (read(path).rgb for path in ends)
                yield SheetRow(image, source, outputs, target)


def begin(folder: Path, *, overwrite: bool = False, resume: bool = False) -> bool:
    """Look at the folder before any work, and make it ready.

    Args:
        folder: Where the files shall go.
        overwrite: Scores and results that are there are given up.
        resume: Scores that are there are kept, and results replaced.

    Returns:
        Whether files of an evaluation may be replaced: also where a run was interrupted.

    Raises:
        InvalidValueError: Both ``overwrite`` and ``resume``.
        OutputExistsError: There are results, or other files in their place, and neither was asked for.
    """
    if overwrite and resume:
        raise InvalidValueError("overwriting begins anew and resuming goes on; ask for one of them")
    journal, finished = folder / JOURNAL, folder / "results.json"
    if finished.exists() and not (overwrite or resume):
        raise OutputExistsError(
            f"{finished} exists already; --resume keeps its scores and goes on, --overwrite begins anew, --output "
            "takes another folder"
        )
    if overwrite:
        journal.unlink(missing_ok=True)
        finished.unlink(missing_ok=True)  # it would say that the run is complete
    elif not journal.exists() and not resume:
        for name in (*FILES, "pictures", "plots", "sheets"):
            check_absent(folder / name)
        return False
    return True


def finish(
    evaluations: Sequence[Evaluation],
    methods: Sequence[Method | Predictions],
    keeper: Keeper,
    folder: Path,
    *,
    cost: bool = True,
    overwrite: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Evaluation]:
    """Measure costs and write everything: results, what differs from run to run (``run.json``), and reports.

    Args:
        evaluations: From :func:`moir.evaluation.run.evaluate`.
        methods: In the same order.
        keeper: Has the pictures.
        folder: Where the files go.
        cost: Measure what each method costs.
        overwrite: Replace results that are there.
        warn: Told what could not be measured.

    Returns:
        The evaluations with their costs.

    Raises:
        OutputExistsError: Results are there already and ``overwrite`` is false.
    """
    found = []
    for evaluation, method in zip(evaluations, methods, strict=True):
        price = None
        if cost and not isinstance(method, Predictions):
            try:
                price = method.cost(COST_SIZE)
            except MoirError as error:
                warn(f"{method.name}: its cost was not measured: {error}")
        found.append(dataclasses.replace(evaluation, cost=price))
    names = [e.method for e in found]
    write_text(folder / "run.json", json.dumps(_run(found, keeper.began), indent=1) + "\n", overwrite=overwrite)
    write_reports(found, folder, pictures=lambda setting: keeper.rows(setting, names), overwrite=overwrite)
    write_results(found, folder, overwrite=overwrite)  # results.json comes last: where it is, the run is complete
    return found


def _run(evaluations: Sequence[Evaluation], began: float) -> dict[str, Any]:
    """What differs from run to run and from machine to machine."""
    return {
        "began": datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began, 1),
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "methods": {
            e.method: {
                "cost": dataclasses.asdict(e.cost) if e.cost else None,
                "seconds_per_picture": {s.setting: _mean_seconds(e, s.setting) for s in e.summaries},
            }
            for e in evaluations
        },
    }


def _mean_seconds(evaluation: Evaluation, setting: str) -> float | None:
    values = [s.seconds for s in evaluation.images if s.setting == setting and s.seconds is not None]
    return round(sum(values) / len(values), 4) if values else None


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.,=()+ -]", "_", name) or "_"
