"""Keeping a GPU busy: tiles go there and come back while others are computed, and nobody waits for a number.

A forward pass on a GPU is a queue of kernels. It runs dry whenever the host stops to read something (a route, whether
all values are finite, a result) before it queues the next one. Here routes are fetched once per picture
(:func:`host_routes`), results are read one tile late (:class:`TilePipeline`), and the kernels of many small tiles are
queued with a single call (:class:`GraphRunner`).
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch

from moir.networks.base import Context
from moir.runtime.tiling import Plan, Span, add_tile

log = logging.getLogger(__name__)

ROUTES = ".experts"
"""How the names end under which networks keep chosen experts; see :meth:`moir.networks.moce_ir.MoCEIR.analyse`."""

Forward = Callable[[torch.Tensor, Context, torch.dtype], torch.Tensor]
"""Tiles (n, 3, h, w) with their context, in a precision, to (n, 3, h, w)."""


def host_routes(context: Context) -> dict[str, torch.Tensor]:
    """The same context with all routes on the CPU, fetched in one transfer.

    :func:`moir.experts.dispatch.dispatch` reads them on the host, in every block and for every tile.

    Args:
        context: What a network's ``analyse`` returned.
    """
    names = [name for name in context if name.endswith(ROUTES)]
    if not names:
        return dict(context)
    fetched = torch.cat([context[name].flatten() for name in names]).cpu()
    parts = fetched.split([context[name].numel() for name in names])
    return {**context, **{n: part.view(context[n].shape) for n, part in zip(names, parts, strict=True)}}


def tiles_at_once(free: int | None, bytes_per_pixel: float, pixels: int, largest: int = 16) -> int:
    """How many tiles to compute together.

    Args:
        free: Bytes that can be had (:func:`moir.runtime.memory.free_memory`); None: not known.
        bytes_per_pixel: Peak memory per pixel of a tile.
        pixels: Pixels of a tile.
        largest: Beyond this many nothing is gained.

    Returns:
        At least 1; what takes at most 60% of the free memory.
    """
    if free is None:
        return 1
    return max(1, min(largest, int(0.6 * free / (bytes_per_pixel * pixels))))


@dataclass
class _Pending:
    """Tiles on their way: what comes back, and what is needed if it is not finite."""

    places: list[tuple[Span, Span]]
    x: torch.Tensor
    context: Context
    result: torch.Tensor
    finite: torch.Tensor
    done: torch.cuda.Event | None


class TilePipeline:
    """Restores the tiles of pictures of one size without waiting for the device between them.

    Tiles are copied from page-locked memory; results are copied back into such memory, with a flag that says whether
    all values are finite, and are read when the tiles after them have been queued. A tile that is not finite in a half
    precision is computed again in float32, so that no picture comes out black.

    On a CPU the same steps run one after the other.

    Args:
        forward: The network; must be right for any number of tiles.
        device: Where it runs.
        dtype: Its precision.
        at_once: Tiles of one size that are computed together, if the pictures are one picture.
    """

    def __init__(self, forward: Forward, device: torch.device, dtype: torch.dtype, at_once: int = 1) -> None:
        self.forward = forward
        self.device = device
        self.dtype = dtype
        self.at_once = at_once

    @torch.inference_mode()
    def restore(
        self,
        pictures: torch.Tensor,
        context: Context,
        division: Plan,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> torch.Tensor:
        """Restore pictures tile by tile.

        Args:
            pictures: (B, 3, H, W), float32, [0, 1], on the CPU.
            context: Of these B pictures.
            division: How they are cut.
            on_tile: Called after every tile with tiles done and all tiles.

        Returns:
            (B, 3, H, W), float32, [0, 1], on the CPU.
        """
        context = host_routes(context)
        canvas = torch.zeros(pictures.shape)
        done = 0
        waiting: _Pending | None = None
        for places in [*self._groups(division, len(pictures)), None]:
            started = None if places is None else self._start(pictures, context, places)
            if waiting is not None:
                for result, place in zip(self._finish(waiting), waiting.places, strict=True):
                    add_tile(canvas, result, *place)
                    done += 1
                    if on_tile is not None:
                        on_tile(done, division.count)
            waiting = started
        return canvas.clamp_(0, 1)

    def _groups(self, division: Plan, batch: int) -> Iterator[list[tuple[Span, Span]]]:
        """Tiles of one size, as many as are computed together."""

        def size(place: tuple[Span, Span]) -> tuple[int, int]:
            return place[0].stop - place[0].start, place[1].stop - place[1].start

        count = self.at_once if batch == 1 else 1
        for _, alike in groupby(sorted(division.tiles(), key=size, reverse=True), key=size):
            members = list(alike)
            yield from (members[start : start + count] for start in range(0, len(members), count))

    def _start(self, pictures: torch.Tensor, context: Context, places: list[tuple[Span, Span]]) -> _Pending:
        parts = [pictures[..., row.start : row.stop, column.start : column.stop] for row, column in places]
        tiles = torch.empty((len(parts) * len(pictures), *parts[0].shape[1:]), pin_memory=self._pinned)
        torch.cat(parts, out=tiles)
        x = tiles.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        if len(places) > 1:
            context = {name: value.expand(len(places), *value.shape[1:]) for name, value in context.items()}
        result = self.forward(x, context, self.dtype).float()
        finite = torch.isfinite(result).all()
        if not self._pinned:
            return _Pending(places, x, context, result.cpu(), finite.cpu(), None)
        back = torch.empty(result.shape, pin_memory=True).copy_(result, non_blocking=True)
        flag = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return _Pending(places, x, context, back, flag, event)

    def _finish(self, pending: _Pending) -> list[torch.Tensor]:
        """The results of each place, (B, 3, h, w)."""
        if pending.done is not None:
            pending.done.synchronize()
        result = pending.result
        if self.dtype is not torch.float32 and not bool(pending.finite):
            log.warning("%s gave values that are not finite; these tiles are computed again in float32", self.dtype)
            result = self.forward(pending.x, pending.context, torch.float32).float().cpu()
        return list(result.chunk(len(pending.places)))

    @property
    def _pinned(self) -> bool:
        return self.device.type == "cuda"


class Recorded(Protocol):
    """A forward pass that was recorded for one shape and one set of routes."""

    def __call__(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        """Run it on other values. The result is valid until the next call."""


class GraphRunner:
    """Records the forward pass of a shape as a CUDA graph, and replays it.

    A network of many small kernels (a MoCE-IR has thousands) takes longer to queue than to run on small tiles; a graph
    is queued with one call. A recording holds for one shape, one precision and one set of routes, and keeps the memory
    of its pass; so there are at most ``limit`` of them, the one that was not used for longest makes way, and a shape is
    recorded only when it has come ``after`` times.

    Args:
        forward: The network.
        limit: How many recordings are kept.
        after: How often a shape must come before it is recorded.
        record: Makes a recording from an example.
    """

    def __init__(
        self,
        forward: Forward,
        limit: int = 4,
        after: int = 3,
        record: Callable[[Forward, torch.Tensor, Context, torch.dtype], Recorded] | None = None,
    ) -> None:
        self.forward = forward
        self.limit = limit
        self.after = after
        self.record = record or record_graph
        self._recorded: OrderedDict[object, Recorded] = OrderedDict()
        self._seen: Counter[object] = Counter()

    def __call__(self, x: torch.Tensor, context: Context, dtype: torch.dtype) -> torch.Tensor:
        """Restore tiles (n, 3, h, w); the context's routes must be on the CPU, see :func:`host_routes`."""
        key = _signature(x, context, dtype)
        recorded = self._recorded.get(key)
        if recorded is None:
            self._seen[key] += 1
            if self._seen[key] < self.after:
                return self.forward(x, context, dtype)
            while len(self._recorded) >= self.limit:
                self._recorded.popitem(last=False)
            del self._seen[key]
            recorded = self._recorded[key] = self.record(self.forward, x, context, dtype)
        self._recorded.move_to_end(key)
        return recorded(x, context)


def _signature(x: torch.Tensor, context: Context, dtype: torch.dtype) -> object:
    """What a recording depends on: shapes, and the values of what the host reads."""
    parts = [
        (name, value.shape, tuple(value.flatten().tolist()) if name.endswith(ROUTES) else None)
        for name, value in sorted(context.items())
    ]
    return (x.shape, dtype, tuple(parts))


def record_graph(forward: Forward, x: torch.Tensor, context: Context, dtype: torch.dtype) -> Recorded:
    """Record a CUDA graph of one forward pass.

    Args:
        forward: The network.
        x: Example tiles, on the GPU.
        context: Their context.
        dtype: Precision.
    """
    inputs = x.clone()
    values = {n: v if v.device.type == "cpu" else v.clone() for n, v in context.items()}
    # Libraries choose algorithms and allocate workspaces in their first passes, which must not be recorded.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            forward(inputs, values, dtype)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = forward(inputs, values, dtype)

    def replay(x: torch.Tensor, context: Context) -> torch.Tensor:
        inputs.copy_(x)
        for name, value in values.items():
            if value.device.type != "cpu":
                value.copy_(context[name])
        graph.replay()
        return result

    return replay
