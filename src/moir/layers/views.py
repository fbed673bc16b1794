"""What estimators look at: crops at native resolution and features of a view."""

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers import tracing

VIEW = 64
"""Side of a thumbnail and of a crop, pixels."""

GRID = 4
"""At most GRID x GRID crops are looked at, spread evenly over the picture."""


@tracing.traced_as(lambda x: tracing.native_crops(x, VIEW, GRID))
def native_crops(x: torch.Tensor) -> torch.Tensor:
    """Crops at native resolution on an even grid, (B, N, 3, VIEW, VIEW), N <= GRID**2.

    Positions are multiples of 8, so that JPEG's blocks fall alike in all of them. Smaller pictures are mirrored up to
    one crop.
    """
    height, width = x.shape[-2:]
    if min(height, width) < VIEW:
        down, right = max(0, VIEW - height), max(0, VIEW - width)
        mode = "reflect" if down < height and right < width else "replicate"
        x = F.pad(x, (0, right, 0, down), mode=mode)
        height, width = x.shape[-2:]
    tops, lefts = _positions(height), _positions(width)
    return torch.stack([x[..., t : t + VIEW, le : le + VIEW] for t in tops for le in lefts], 1)


def _positions(side: int) -> list[int]:
    count = min(GRID, side // VIEW)
    if count == 1:
        return [(side - VIEW) // 16 * 8]
    return [round(i * (side - VIEW) / (count - 1)) // 8 * 8 for i in range(count)]


@tracing.traced_as(lambda x, side=VIEW: tracing.adaptive_mean(x, side))
def thumbnail(x: torch.Tensor, side: int = VIEW) -> torch.Tensor:
    """The picture averaged down (or repeated up) to a square: (B, C, H, W) to (B, C, side, side)."""
    return F.adaptive_avg_pool2d(x, side)


def view_features(width: int) -> nn.Sequential:
    """Convolutions from a 64x64 view to 3 * width features on 8x8 positions."""
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(12, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(3 * width, 3 * width, 3, padding=1),
        nn.ReLU(),
    )


def feature_statistics(features: torch.Tensor) -> torch.Tensor:
    """Mean and deviation over positions: (B, C, H, W) to (B, 2C)."""
    variance, mean = torch.var_mean(features, dim=(2, 3), correction=0)
    return torch.cat([mean, (variance + 1e-6).sqrt()], 1)
