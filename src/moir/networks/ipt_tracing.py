"""What stands in for :mod:`moir.networks.ipt_tiling` while a graph is recorded for any size.

Positions and weights are tensors that depend on the size; all tiles are restored at once, and put together by products
with matrices, one for each axis. See :mod:`moir.layers.tracing`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from moir.layers import tracing


def published_axis(length: Any, patch: int, scale: int) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """See :func:`moir.networks.ipt_tiling.published_axis`.

    Returns:
        First pixel of each tile; weight of each tile for each pixel of the result, (s length, tiles); the seam. There
        is always a last tile beside the regular ones: where these fit, it is the same as the last of them.
    """
    stride, side = patch // 4, patch * scale
    cut = (length - patch) % stride
    count = (length - cut - patch) // stride + 1
    regular = torch.arange(count) * stride
    place = torch.arange(length * scale)
    inside = place[:, None] - regular * scale  # of each pixel of the result in each tile
    first, last = regular == 0, regular == (count - 1) * stride
    kept = ((inside >= stride * scale) | first) & ((inside < side - stride * scale) | last)
    kept = kept & (inside >= 0) & (inside < side)
    seam = (length - cut) * scale - (patch - cut) * scale // 2
    share = kept.float() / kept.float().sum(dim=1, keepdim=True).clamp(min=1)
    share = share * (place < seam)[:, None].float()
    flush = place - (length - patch) * scale >= ((patch - cut) * scale + 1) // 2
    starts = torch.cat([regular, torch.as_tensor(length - patch).reshape(1)])
    return starts, torch.cat([share, flush[:, None].float()], dim=1), seam


def blended_axis(length: Any, patch: int, stride: int, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`moir.networks.ipt_tiling.blended_axis`.

    Returns:
        First pixel of each tile; weight of each tile for each pixel of the result, (s length, tiles).
    """
    count = (length - patch + stride - 1) // stride + 1
    starts = torch.minimum(torch.arange(count) * stride, torch.as_tensor(length - patch))
    inside = torch.arange(length * scale)[:, None] - starts * scale
    window = torch.sin((inside.float() + 0.5) / (patch * scale) * math.pi) ** 2
    window = window * ((inside >= 0) & (inside < patch * scale)).float()
    return starts, window / window.sum(dim=1, keepdim=True)


def restore_tiles(
    restore: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, patch: int, scale: int, stride: int | None
) -> torch.Tensor:
    """See :func:`moir.networks.ipt_tiling.restore_tiles`; all tiles at once, put together by products with matrices.

    Args:
        restore: Maps tiles (N, 3, patch, patch) to (N, 3, s patch, s patch).
        x: (B, 3, H, W).
        patch: Side of a tile, pixels.
        scale: s.
        stride: Distance of blended tiles, pixels; None: the published tiling.
    """
    height, width = tracing.sides(x)
    batch, side = x.shape[0], patch * scale
    seam: Any = None
    if stride is None:
        tops, down, _ = published_axis(height, patch, scale)
        lefts, across, seam = published_axis(width, patch, scale)
    else:
        tops, down = blended_axis(height, patch, stride, scale)
        lefts, across = blended_axis(width, patch, stride, scale)
    rows, columns = tops.shape[0], lefts.shape[0]
    inside = torch.arange(patch)
    tiles = x.index_select(-2, (tops[:, None] + inside).flatten()).index_select(-1, (lefts[:, None] + inside).flatten())
    tiles = tiles.reshape(batch, 3, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    results = restore(tiles.reshape(batch * rows * columns, 3, patch, patch))
    results = results.reshape(batch, rows, columns, 3, side, side).permute(0, 3, 1, 4, 2, 5)
    wide = results.reshape(batch, 3, rows * side, columns * side)

    def spread(weights: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """(s length, tiles * side): how much of each pixel of each tile goes to each pixel of the result."""
        place = torch.arange(weights.shape[0])[:, None, None] - starts[:, None] * scale
        return (weights[:, :, None] * (place == torch.arange(side)).float()).flatten(1)

    canvas = spread(down, tops) @ wide @ spread(across, lefts).transpose(0, 1)
    if stride is None:
        # Right of the corner at the top, the first tile is not blended: see there.
        margin = patch // 4 * scale
        row, column = torch.arange(canvas.shape[2])[:, None], torch.arange(canvas.shape[3])
        alone = (row < margin) & (column >= margin) & (column < torch.clamp(seam, max=side))
        corner = wide.index_select(-2, row[:, 0].clamp(max=side - 1)).index_select(-1, column.clamp(max=side - 1))
        canvas = torch.where(alone, corner, canvas)
    return canvas
