"""What the machine can do at best, measured where the networks are: matrix products and copies."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from moir.runtime.device import PRECISIONS

SIDE = {"cpu": 1536, "cuda": 8192, "mps": 4096}
"""Side of the square matrices: large enough that arithmetic limits the product, small enough for many repeats."""

BYTES = {"cpu": 2**27, "cuda": 2**30, "mps": 2**28}
"""Bytes that are copied: far more than any cache holds."""

SECONDS = 0.3
"""How long each ceiling is looked for; the best run counts, so that short disturbances do not."""


@dataclass(frozen=True)
class Ceilings:
    """The measured peaks of a device.

    Attributes:
        gflops: GFLOP/s of a matrix product (a multiply-add is two operations), by precision.
        copy_gb_s: Bytes read and written by a copy in memory, GB/s.
    """

    gflops: dict[str, float]
    copy_gb_s: float


def measure_ceilings(device: torch.device, precisions: list[str]) -> Ceilings:
    """Measure products of two square matrices in each precision, and a copy; the best of many runs each."""
    side = SIDE[device.type]
    gflops = {}
    for precision in precisions:
        a, b = (torch.rand(side, side, device=device).to(PRECISIONS[precision]) for _ in range(2))
        out = torch.empty_like(a)
        gflops[precision] = 2 * side**3 / _best(partial(torch.mm, a, b, out=out), device) / 1e9
    source = torch.rand(BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    copied = 2 * BYTES[device.type] / _best(partial(target.copy_, source), device) / 1e9
    return Ceilings(gflops, copied)


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest run, after one that is not counted."""
    best, end = float("inf"), None
    while end is None or time.perf_counter() < end or best == float("inf"):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        taken = time.perf_counter() - began
        if end is None:
            end = time.perf_counter() + SECONDS
        else:
            best = min(best, taken)
    return best


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
