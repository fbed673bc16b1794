"""Pictures through a network of one fixed input size: where tiles lie, and how their results are weighed.

Every way of putting tiles together here is linear and separable: a pixel of the result is a sum of tiles, each
multiplied by a weight of its row and a weight of its column. So a tiling is two lists of positions with weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis.

    Attributes:
        starts: First pixel of each tile, in the input.
        weights: (tiles, scale * patch): weight of each pixel of a tile's result; where tiles overlap they sum to 1.
        seam: Pixel of the result from which the last tile alone is seen; None: tiles blend up to the end.
    """

    starts: list[int]
    weights: torch.Tensor
    seam: int | None = None


def published_axis(length: int, patch: int, scale: int) -> Axis:
    """IPT's tiling: a tile at every quarter of a patch, of which the middle half is averaged.

    At the beginning a tile is kept up to the border. At the end, a last tile is laid flush with the border, and takes
    over, without blending, in the middle of what it shares with the end of the regular tiles.

    Args:
        length: Length of the axis, pixels, at least ``patch``.
        patch: Side of a tile, pixels, a multiple of 4.
        scale: How many times larger the result is.
    """
    stride, side = patch // 4, patch * scale
    cut = (length - patch) % stride  # what the regular tiles leave over
    starts = list(range(0, length - cut - patch + 1, stride))
    end = (length - cut) * scale
    kept = torch.zeros(len(starts), side)
    kept[:, stride * scale : side - stride * scale] = 1
    kept[0, : stride * scale] = 1
    kept[-1, side - stride * scale :] = 1
    weights = _normalised(kept, starts, scale, end)
    last = torch.zeros(1, side)
    last[:, int((patch - cut) / 2 * scale + 0.5) :] = 1
    seam = end - int((patch - cut) / 2 * scale)
    for start, weight in zip(starts, weights, strict=True):
        weight[max(0, seam - start * scale) :] = 0
    if cut == 0:  # the last regular tile is flush already
        weights[-1:] += last
        return Axis(starts, weights, seam)
    return Axis([*starts, length - patch], torch.cat([weights, last]), seam)


def blended_axis(length: int, patch: int, stride: int, scale: int) -> Axis:
    """Tiles at every ``stride`` pixels, the last flush with the border, blended with sin^2 windows.

    Args:
        length: Length of the axis, pixels, at least ``patch``.
        patch: Side of a tile, pixels.
        stride: Distance of neighbours, 1 to ``patch`` pixels.
        scale: How many times larger the result is.
    """
    starts = [*range(0, length - patch, stride), length - patch]
    window = torch.sin((torch.arange(patch * scale) + 0.5) / (patch * scale) * math.pi) ** 2
    return Axis(starts, _normalised(window.repeat(len(starts), 1), starts, scale, length * scale))


def _normalised(weights: torch.Tensor, starts: list[int], scale: int, length: int) -> torch.Tensor:
    """Weights that sum to 1 on every pixel of an axis of this length."""
    places = [slice(start * scale, start * scale + weights.shape[1]) for start in starts]
    total = torch.zeros(length)
    for place, weight in zip(places, weights, strict=True):
        total[place] += weight
    return torch.stack([weight / total[place] for place, weight in zip(places, weights, strict=True)])


def restore_tiles(
    restore: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, rows: Axis, columns: Axis, patch: int, batch: int
) -> torch.Tensor:
    """Cut pictures into tiles, restore these, and put the results together.

    With the published tiling there is one place that is not separable: at the top, right of the corner, the first tile
    is not blended with those to its right, because the strip along the left border is laid over that along the top.

    Args:
        restore: Maps tiles (N, 3, patch, patch) to (N, 3, s patch, s patch).
        x: (B, 3, H, W).
        rows: Tiles along H.
        columns: Tiles along W.
        patch: Side of a tile, pixels.
        batch: Largest N wanted. (All pictures' tiles of one place go together, so that N is at least B.)

    Returns:
        (B, 3, s H, s W).
    """
    scale = rows.weights.shape[1] // patch
    corner = canvas = x.new_zeros(len(x), 3, x.shape[2] * scale, x.shape[3] * scale)
    down, across = rows.weights.to(x), columns.weights.to(x)
    places = [(i, j) for i in range(len(rows.starts)) for j in range(len(columns.starts))]
    step = max(1, batch // len(x))
    for first in range(0, len(places), step):
        some = places[first : first + step]
        tops_lefts = [(rows.starts[i], columns.starts[j]) for i, j in some]
        tiles = torch.cat([x[..., top : top + patch, left : left + patch] for top, left in tops_lefts])
        results = restore(tiles).split(len(x))
        for (i, j), (top, left), result in zip(some, tops_lefts, results, strict=True):
            vertical = slice(top * scale, (top + patch) * scale)
            horizontal = slice(left * scale, (left + patch) * scale)
            canvas[..., vertical, horizontal] += result * down[i][:, None] * across[j]
            if columns.seam is not None and (i, j) == (0, 0):
                corner = result
    if columns.seam is not None:
        margin, stop = patch // 4 * scale, min(patch * scale, columns.seam)
        canvas[..., :margin, margin:stop] = corner[..., :margin, margin:stop]
    return canvas
