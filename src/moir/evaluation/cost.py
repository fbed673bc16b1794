"""What a model costs: parameters, multiply-accumulates, peak memory, seconds."""

import ctypes
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from moir.base.errors import InvalidValueError
from moir.evaluation.records import Cost

if TYPE_CHECKING:
    from moir.restore import Restorer

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
SAMPLING = 0.001
"""Seconds between two looks at the memory, where the system does not keep the peak for us."""


def measure_cost(
    restore: Callable[[torch.Tensor], object],
    size: tuple[int, int],
    *,
    network: nn.Module | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    repeats: int = 3,
    count: Callable[[tuple[int, int]], int] | None = None,
) -> Cost:
    """Measure a method on one synthetic picture.

    The first run is not counted: it makes what is made once (kernels, caches). Memory is measured on the second run,
    time on ``repeats`` further ones.

    Args:
        restore: Restores a picture (3, H, W), float32, [0, 1], on the CPU.
        size: Height and width of the picture, pixels.
        network: What is run inside, for parameters and MACs; None: they are None in the result.
        device: Where the network computes; memory is that of this device.
        precision: Of the arithmetic, for the record.
        repeats: Timed runs; their median is given.
        count: Gives the MACs for a picture of ``size``; None: :func:`count_macs` of the network.

    Raises:
        InvalidValueError: A size or number of repeats below 1.
    """
    if min(size) < 1 or repeats < 1:
        raise InvalidValueError(f"a cost needs a picture of at least 1x1 px and one run, got {size} and {repeats}")
    device = torch.device(device)
    x = example(size)
    _run(restore, x, device)
    with peak_memory(device) as peak:
        _run(restore, x, device)
    seconds = statistics.median(_run(restore, x, device) for _ in range(repeats))
    if count is None and network is not None:
        count = partial(count_macs, network)
    return Cost(
        parameters=None if network is None else count_parameters(network),
        macs=None if count is None else count(size),
        size=size,
        peak_mb=None if peak.bytes is None else peak.bytes / 2**20,
        seconds=seconds,
        device=device.type,
        precision=precision,
    )


def cost_of_restorer(restorer: "Restorer", size: tuple[int, int], *, repeats: int = 3) -> Cost:
    """The cost of a model as it is used, estimate and tiles included; see :func:`measure_cost`.

    MACs are those of the network on the whole picture: overlapping tiles take more, about as the overlap has it.
    """
    engine = restorer.engine
    return measure_cost(
        restorer,
        size,
        network=engine.network,
        device=engine.device,
        precision=engine.precision,
        repeats=repeats,
    )


def example(size: tuple[int, int]) -> torch.Tensor:
    """A picture (3, H, W) with gradients, edges and noise, always the same; routed networks decide by what they see."""
    height, width = size
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    picture = torch.stack([rows.expand(size), columns.expand(size), (rows + columns) * 4 % 1])
    return (picture + 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def count_parameters(network: nn.Module) -> int:
    """Numbers in the parameters of a network, trained or frozen; shared ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, size: tuple[int, int], channels: int = 3) -> int:
    """Multiply-accumulates of one forward pass for a picture of this height and width.

    Convolutions and matrix products (attention included), as the papers count; half of the FLOPs that
    :class:`torch.utils.flop_counter.FlopCounterMode` finds. Norms, activations, additions and biases are not counted.

    Nothing is computed (meta tensors) unless the network decides by values, as routed ones do; then it is run on
    :func:`example`, and what counts are the experts that this picture took.

    Args:
        network: Takes (1, channels, H, W). It is left as it is, in evaluation mode while it is counted.
        size: Height and width, pixels.
        channels: Of the picture.
    """
    was_training = network.training
    network.eval()
    try:
        return _count(network, size, channels)
    finally:
        network.train(was_training)


def _count(network: nn.Module, size: tuple[int, int], channels: int) -> int:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            functional_call(network, shapes, (torch.empty(1, channels, *size, device="meta"),))
    except RuntimeError:  # a decision by values, or a tensor that the network keeps beside its parameters
        counter = FlopCounterMode(display=False)
        like = next(iter(tensors.values()), torch.empty(()))
        x = example(size).mean(0).expand(1, channels, *size) if channels != 3 else example(size)[None]
        with torch.no_grad(), counter:
            network(x.to(like.device, like.dtype))
    return counter.get_total_flops() // 2


@dataclass
class Peak:
    """The answer of :func:`peak_memory`: bytes above what was held at its start; None if it cannot be told here."""

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Watch how much memory a block takes at its worst, above what was held when it began.

    On CUDA: what the allocator gave out. On a CPU: the resident set of the process, from the kernel's own record where
    it can be reset (Linux), otherwise by looking every millisecond. Elsewhere the answer is None. What another thread
    of the process takes meanwhile is counted too.

    Examples:
        >>> with peak_memory(torch.device("cpu")) as peak:
        ...     _ = torch.ones(4_000_000)
        >>> peak.bytes is None or peak.bytes > 8_000_000
        True
    """
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
    elif device.type != "cpu" or _resident("VmRSS") is None:
        yield peak
    else:
        _trim()
        highest = _watch()
        before = _resident("VmRSS") or 0
        try:
            yield peak
        finally:
            found = highest()
        peak.bytes = max(0, found - before)


def _watch() -> Callable[[], int]:
    """Begin to watch the resident set; the result ends it and gives the highest value, bytes."""
    try:
        CLEAR_REFS.write_text("5")  # the kernel counts the peak from here
        return lambda: _resident("VmHWM") or 0
    except OSError:
        seen = [_resident("VmRSS") or 0]
        done = threading.Event()

        def look() -> None:
            while not done.wait(SAMPLING):
                seen[0] = max(seen[0], _resident("VmRSS") or 0)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()

        def end() -> int:
            done.set()
            thread.join()
            return seen[0]

        return end


def _resident(field: str) -> int | None:
    """A memory figure of this process in bytes; None where the system has no such file."""
    try:
        status = STATUS.read_text()
    except OSError:
        return None
    return int(status.split(f"{field}:")[1].split()[0]) * 1024 if f"{field}:" in status else None


def _trim() -> None:
    """Give freed memory back to the system, or the block would take it again unseen (glibc only)."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            return


def _run(restore: Callable[[torch.Tensor], object], x: torch.Tensor, device: torch.device) -> float:
    began = time.perf_counter()
    restore(x)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
