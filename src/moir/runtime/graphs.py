"""CUDA graphs: the kernels of a whole forward pass, queued with a single call."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Protocol

import torch

from moir.networks.base import Context
from moir.runtime.pipeline import Forward, is_route


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
        """Restore tiles (n, 3, h, w); routes must be on the CPU (:func:`moir.runtime.pipeline.host_routes`)."""
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
        (name, value.shape, tuple(value.flatten().tolist()) if is_route(name) else None)
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
