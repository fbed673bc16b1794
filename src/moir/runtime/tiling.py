"""Cutting a picture into overlapping tiles, and putting the results together without seams.

Tiles of one plan have one size, and their positions are multiples of the network's size multiple, so that every tile
sees the same grid as the whole picture. Where two neighbours overlap, what lies near a tile's border, and so lacks
context, is thrown away; in the middle of the overlap they are blended over a few pixels with sin^2 and cos^2 weights,
which sum to 1, so that no sum of weights need be kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from moir.base.errors import InvalidValueError

BLEND = 16
"""Over how many pixels neighbours fade into each other, at most. The fewer, the more of the overlap is context."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes:
        start, stop: Its pixels.
        before, after: How many of them it shares with the neighbour before and after; 0 at the picture's border.
        blend: Over how many pixels, in the middle of what is shared, it fades.
    """

    start: int
    stop: int
    before: int = 0
    after: int = 0
    blend: int = 0

    def weights(self) -> torch.Tensor:
        """Blending weights, (stop - start,); with the neighbours' they sum to 1 everywhere."""
        place = torch.arange(self.stop - self.start) + 0.5
        weights = torch.ones_like(place)
        if self.before:
            weights *= _rise(place - self.before / 2, self.blend)
        if self.after:
            weights *= 1 - _rise(place - (self.stop - self.start - self.after / 2), self.blend)
        return weights


def _rise(place: torch.Tensor, width: int) -> torch.Tensor:
    """From 0 to 1 around place 0, over ``width``, as sin^2."""
    return torch.sin((place / width + 0.5).clamp(0, 1) * math.pi / 2) ** 2


def spans(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """Divide one axis.

    Args:
        length: Length of the axis, pixels.
        tile: Largest length of a tile, a multiple of ``multiple``, more than twice ``overlap``.
        overlap: Smallest overlap of neighbours, a multiple of ``multiple``.
        multiple: Tiles start at multiples of this.

    Returns:
        Tiles from first to last; one, if the axis is no longer than a tile.

    Raises:
        InvalidValueError: The tile is too small for the overlap, or not a multiple.
    """
    if tile % multiple or overlap % multiple or tile <= 2 * overlap:
        raise InvalidValueError(
            f"a tile of {tile} px with an overlap of {overlap} px is not possible: both must be multiples of "
            f"{multiple}, and the tile larger than twice the overlap"
        )
    if length <= tile:
        return [Span(0, length)]
    units = math.ceil(length / multiple)  # the network pads to this grid
    count = math.ceil((units * multiple - overlap) / (tile - overlap))
    # All tiles of one size, as small as they may be, spread evenly.
    size = math.ceil((units + (count - 1) * overlap / multiple) / count)
    starts = [round(i * (units - size) / (count - 1)) * multiple for i in range(count)]
    stops = [min(length, start + size * multiple) for start in starts]
    shared = [stop - start for stop, start in zip(stops, starts[1:], strict=False)]
    return [
        Span(start, stop, before, after, max(1, min(BLEND, overlap // 2)))
        for start, stop, before, after in zip(starts, stops, [0, *shared], [*shared, 0], strict=True)
    ]


@dataclass(frozen=True)
class Plan:
    """How a picture is divided: rows and columns of tiles."""

    rows: list[Span]
    columns: list[Span]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    def tiles(self) -> Iterator[tuple[Span, Span]]:
        """Row and column span of each tile, in reading order."""
        return ((row, column) for row in self.rows for column in self.columns)


def plan(height: int, width: int, tile: int | None, overlap: int, multiple: int) -> Plan:
    """Divide a picture; ``tile`` None: one tile that is the whole picture."""
    if tile is None:
        return Plan([Span(0, height)], [Span(0, width)])
    return Plan(spans(height, tile, overlap, multiple), spans(width, tile, overlap, multiple))


def add_tile(canvas: torch.Tensor, result: torch.Tensor, row: Span, column: Span) -> None:
    """Add a restored tile (B, 3, h, w), weighted, to the canvas (B, 3, H, W)."""
    if row.before or row.after:
        result = result * row.weights().to(result)[:, None]
    if column.before or column.after:
        result = result * column.weights().to(result)
    canvas[..., row.start : row.stop, column.start : column.stop] += result
