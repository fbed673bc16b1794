"""Timing: every engine and precision of a model and size in one run, taking turns with the yardstick."""

import copy
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch

from moir.base.errors import InvalidValueError, MoirError
from moir.evaluation.bench.ceilings import Ceilings, measure_ceilings, synchronise
from moir.evaluation.bench.engines import ENGINES, YARDSTICK, Run, yardstick
from moir.evaluation.bench.memory import peak_of
from moir.evaluation.bench.models import open_model
from moir.evaluation.bench.plan import Case
from moir.evaluation.cost import count_macs, count_parameters, example
from moir.metrics import psnr
from moir.networks.base import RestorationNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """What was measured of one case.

    Attributes:
        model, size, device, precision, engine: The case; pictures are ``size`` x ``size`` pixels.
        median_s, min_s: Seconds for one picture, estimate included.
        peak_mb: Memory above the loaded model, MB, in a process of its own; None: not measured.
        ratio: How many times faster than the yardstick, by the fastest runs of both.
        psnr_to_yardstick: dB; None: equal, or the yardstick itself.
        max_error: Largest difference to the yardstick, in units of [0, 1].
        macs: Multiply-accumulates of the network for this picture, as the straightforward module does them.
        parameters: Of the network.
        gflops: Achieved, GFLOP/s: twice the MACs over ``min_s``. An engine that saves arithmetic gets the same credit.
        peak_gflops: Of a large matrix product in this precision, measured in the same run.
        share_of_peak: ``gflops`` over ``peak_gflops``.
        copy_gb_s: What a copy in memory reached in the same run, GB/s.
        weights: ``trained`` or ``random``; speed does not depend on it.
        threads: Of the CPU.
        repeats: Timed runs.
    """

    model: str
    size: int
    device: str
    precision: str
    engine: str
    median_s: float
    min_s: float
    peak_mb: float | None
    ratio: float
    psnr_to_yardstick: float | None
    max_error: float
    macs: int
    parameters: int
    gflops: float
    peak_gflops: float
    share_of_peak: float
    copy_gb_s: float
    weights: str
    threads: int
    repeats: int

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON, rounded to what was measured."""
        digits = {"gflops": 1, "peak_gflops": 1, "share_of_peak": 4, "copy_gb_s": 1, "ratio": 3, "psnr_to_yardstick": 2}
        rounded = {name: round(value, digits.get(name, 6)) for name, value in asdict(self).items() if _is_float(value)}
        return {**asdict(self), **rounded}


def prepare(case: Case, network: RestorationNetwork) -> Run:
    """Make a case ready to run on a network that is its own.

    Raises:
        InvalidValueError: The engine does not serve this network.
    """
    make = yardstick if case.engine == YARDSTICK else ENGINES[case.engine].prepare
    return make(network, case.device, case.precision)


def bench(
    cases: Iterable[Case],
    *,
    repeats: int = 5,
    memory: bool = True,
    on_run: Callable[[Case, int, int], None] | None = None,
    note: Callable[[str], None] = log.info,
) -> Iterator[Row]:
    """Measure the cases of :func:`~moir.evaluation.bench.plan.plan`, model by model and size by size.

    All cases of a model and size are made ready in one process, run once (not counted), and then take turns
    ``repeats`` times, so that whatever else the machine does falls on all alike. Memory is measured afterwards.

    Args:
        cases: The yardstick of a model and size comes first.
        repeats: Timed runs of each.
        memory: Measure memory, in a further process for each case.
        on_run: Called after every timed run with its case, rounds done and all rounds.
        note: Takes a sentence about each case that cannot be run and was not asked for by name.

    Raises:
        InvalidValueError: Fewer repeats than one, or an engine that was named does not serve the model.
        MoirError: The process that measures memory broke.
    """
    if repeats < 1:
        raise InvalidValueError(f"repeats {repeats} is not possible: at least one run must be timed")
    listed = list(cases)
    ceilings: dict[str, Ceilings] = {}
    for device in dict.fromkeys(case.device for case in listed):
        precisions = list(dict.fromkeys(case.precision for case in listed if case.device == device))
        ceilings[device] = measure_ceilings(torch.device(device), precisions)
    for (*_, device), group in groupby(listed, lambda case: (case.model, case.size, case.device)):
        yield from _one(list(group), ceilings[device], repeats, memory, on_run, note)


def _one(
    cases: list[Case],
    ceilings: Ceilings,
    repeats: int,
    memory: bool,
    on_run: Callable[[Case, int, int], None] | None,
    note: Callable[[str], None],
) -> Iterator[Row]:
    """All rows of one model and size."""
    first = cases[0]
    device = torch.device(first.device)
    network, weights = open_model(first.model)
    if network.scale != 1:
        raise InvalidValueError(
            f"{first.model} makes pictures {network.scale} times larger, which the engines cannot do; see --overhead"
        )
    x = example((first.size, first.size))[None]
    runs: dict[Case, Run] = {}
    outputs: dict[Case, torch.Tensor] = {}
    for case in cases:
        try:
            runs[case] = prepare(case, copy.deepcopy(network))
            outputs[case] = runs[case](x)
        except MoirError as error:
            if case.required:
                raise
            runs.pop(case, None)
            note(f"{case.model}, {case.size} px: {error}")
    seconds: dict[Case, list[float]] = {case: [] for case in runs}
    for done in range(1, repeats + 1):
        for case, run in runs.items():
            synchronise(device)
            began = time.perf_counter()
            run(x)
            synchronise(device)
            seconds[case].append(time.perf_counter() - began)
            if on_run is not None:
                on_run(case, done, repeats)
    runs.clear()  # their memory is not needed while that of others is measured
    macs = count_macs(network, (first.size, first.size))
    for case, taken in seconds.items():
        best = min(taken)
        difference = (outputs[case] - outputs[first]).abs().max().item()
        gflops, peak = 2 * macs / best / 1e9, ceilings.gflops[case.precision]
        yield Row(
            case.model,
            case.size,
            case.device,
            case.precision,
            case.engine,
            median_s=statistics.median(taken),
            min_s=best,
            peak_mb=peak_of(case) if memory else None,
            ratio=min(seconds[first]) / best,
            psnr_to_yardstick=psnr(outputs[case], outputs[first]).item() if difference > 0 else None,
            max_error=difference,
            macs=macs,
            parameters=count_parameters(network),
            gflops=gflops,
            peak_gflops=peak,
            share_of_peak=gflops / peak,
            copy_gb_s=ceilings.copy_gb_s,
            weights=weights,
            threads=torch.get_num_threads(),
            repeats=repeats,
        )


def _is_float(value: object) -> bool:
    return isinstance(value, float)
