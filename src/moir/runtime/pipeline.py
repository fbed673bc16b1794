"""The tiles of a picture, one after the other, so that a GPU is kept busy: nobody waits there for a number.

A forward pass on a GPU is a queue of kernels. It runs dry whenever the host stops to read something (a route, whether
all values are finite, a result) before it queues the next one. Here routes are fetched once per picture
(:func:`host_routes`), and results are read one tile late (:class:`TilePipeline`). On a CPU the same steps run one after
the other.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch

from moir.networks.base import PLACE, Context
from moir.runtime.scaling import scaled
from moir.runtime.tiling import Plan, Span, add_tile

log = logging.getLogger(__name__)

ROUTES = ("expert", "analysed")
"""Names under which trees of networks keep which expert was chosen; other networks keep theirs under ``*.experts``."""

Forward = Callable[[torch.Tensor, Context, torch.dtype], torch.Tensor]
"""Tiles (n, 3, h, w) with their context, in a precision, to (n, 3, h, w)."""


def is_route(name: str) -> bool:
    """Whether a part of a context says which experts were chosen, which the host reads in every pass."""
    return name in ROUTES or name.endswith(".experts")


def host_routes(context: Context) -> dict[str, torch.Tensor]:
    """The same context with all routes on the CPU, fetched in one transfer.

    Networks read them on the host, for every tile, and MoCE-IR (:func:`moir.experts.dispatch.dispatch`) in every block.

    Args:
        context: What a network's ``analyse`` returned.
    """
    names = [name for name in context if is_route(name)]
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
    """Restores pictures of one size tile by tile, without waiting for the device between the tiles.

    For a GPU, tiles are copied from page-locked memory; results are copied back into such memory, with a flag that says
    whether all values are finite, and are read when the tiles after them have been queued. A tile that is not finite in
    a half precision is computed again in float32, so that no picture comes out black.

    Args:
        forward: The network; must be right for any number of tiles.
        device: Where it runs.
        dtype: Its precision.
        scale: How many times larger results are than tiles.
        at_once: Tiles that are computed together, if the pictures are one picture.
        uses_place: Whether the network must know where in the picture a tile lies.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        dtype: torch.dtype,
        scale: int = 1,
        at_once: int = 1,
        uses_place: bool = False,
    ) -> None:
        self.forward = forward
        self.device = device
        self.dtype = dtype
        self.scale = scale
        self.at_once = at_once
        self.uses_place = uses_place

    @torch.inference_mode()
    def restore(
        self,
        pictures: torch.Tensor,
        context: Context,
        division: Plan,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> torch.Tensor:
        """Restore pictures.

        Args:
            pictures: (B, 3, H, W), float32, [0, 1], on the CPU.
            context: Of these B pictures.
            division: How they are cut.
            on_tile: Called after every tile with tiles done and all tiles.

        Returns:
            (B, 3, s H, s W), float32, [0, 1], on the CPU; s is the scale.
        """
        context = host_routes(context)
        if division.count == 1:  # no canvas beside the result
            (result,) = self._finish(self._start(pictures, context, list(division.tiles())))
            if on_tile is not None:
                on_tile(1, 1)
            return result.clamp_(0, 1)
        height, width = pictures.shape[-2:]
        canvas = torch.zeros(*pictures.shape[:2], height * self.scale, width * self.scale)
        done = 0
        waiting: _Pending | None = None
        for places in [*self._groups(division, len(pictures)), None]:
            started = None
            if places is not None:
                started = self._start(pictures, self._of_tiles(context, pictures, places), places)
            if waiting is not None:
                for result, (row, column) in zip(self._finish(waiting), waiting.places, strict=True):
                    add_tile(canvas, result, scaled(row, self.scale), scaled(column, self.scale))
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

    def _of_tiles(self, context: Context, pictures: torch.Tensor, places: list[tuple[Span, Span]]) -> Context:
        """The context of these tiles, from that of their pictures."""
        if len(places) > 1:  # of one picture
            context = {name: value.expand(len(places), *value.shape[1:]) for name, value in context.items()}
        if self.uses_place:
            height, width = pictures.shape[-2:]
            where = torch.tensor([(row.start, column.start, height, width) for row, column in places])
            where = where.repeat_interleave(len(pictures), dim=0)
            where = where.pin_memory() if self._queues else where
            context = {**context, PLACE: where.to(self.device, non_blocking=self._queues)}
        return context

    def _start(self, pictures: torch.Tensor, context: Context, places: list[tuple[Span, Span]]) -> _Pending:
        x = self._there([pictures[..., row.start : row.stop, column.start : column.stop] for row, column in places])
        result = self.forward(x, context, self.dtype).float()
        finite = torch.isfinite(result).all()
        if not self._queues:
            return _Pending(places, x, context, result.cpu(), finite.cpu(), None)
        back = torch.empty(result.shape, pin_memory=True).copy_(result, non_blocking=True)
        flag = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return _Pending(places, x, context, back, flag, event)

    def _there(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Tiles of one size as one batch on the device."""
        if self._queues:
            shape = (len(parts) * len(parts[0]), *parts[0].shape[1:])
            tiles = torch.cat(parts, out=torch.empty(shape, pin_memory=True))
        else:
            tiles = parts[0] if len(parts) == 1 else torch.cat(parts)
        x = tiles.to(self.device, non_blocking=self._queues)
        return x.contiguous(memory_format=torch.channels_last)

    def _finish(self, pending: _Pending) -> list[torch.Tensor]:
        """The results of each place, (B, 3, s h, s w)."""
        if pending.done is not None:
            pending.done.synchronize()
        result = pending.result
        if self.dtype is not torch.float32 and not bool(pending.finite):
            log.warning("%s gave values that are not finite; these tiles are computed again in float32", self.dtype)
            result = self.forward(pending.x, pending.context, torch.float32).float().cpu()
        return list(result.chunk(len(pending.places)))

    @property
    def _queues(self) -> bool:
        """Whether the device works on while the host does something else."""
        return self.device.type == "cuda"
