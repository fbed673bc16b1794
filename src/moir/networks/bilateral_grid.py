"""A bilateral grid of colour transforms: undoes what is smooth over a picture, such as haze and darkness.

After "Deep Bilateral Learning for Real-Time Image Enhancement" (HDRNet, Gharbi et al., SIGGRAPH 2017, arXiv
1707.02880): a small network looks at a thumbnail of the whole picture and predicts a coarse grid over position and
brightness of colour transforms; each pixel is transformed by what stands at its place and brightness. Differences: the
brightness is the luma, not a learned guide; a transform has gains as exponentials, so that a dark picture's factor of
ten is as near as a tenth; the network estimates which damage there is, and can be told what to remove.

Haze and darkness are decisions about a scene, which the patches that restoration networks are trained on hardly show.
A thumbnail shows all of it, and costs next to nothing. What is fine (noise, streaks, blocks) it leaves to others.
"""

from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.names import DEGREES, TYPES
from moir.layers.bilateral import slice_grid
from moir.layers.views import feature_statistics, thumbnail
from moir.networks.base import PLACE, Context, build, check_pictures, recall
from moir.networks.compact import Block
from moir.networks.instructed import InstructedNetwork, by_estimate

COEFFICIENTS = 12
"""Of a colour transform: 3 logarithms of gains, 6 of the other channels, 3 offsets."""

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601: what a pixel's place along the grid's brightness is made of."""


class Residual(nn.Module):
    """x + conv(relu(conv(x))); at first x alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        out: torch.Tensor = x + self.conv2(torch.relu(self.conv1(x)))
        return out


class BilateralGrid(InstructedNetwork):
    """Predicts a bilateral grid of colour transforms from a thumbnail, and applies it pixel by pixel.

    Context (:meth:`analyse`):
        ``presence`` (B, 7), ``degree`` (B, 7, 3): logits as those of :class:`moir.networks.compact.Compact`.
        ``embedding`` (B, V, E), ``features`` (B, V, C, G, G): what the thumbnail shows. V: views; out of training two,
        as it is and mirrored, whose estimates and grids are averaged: they err a little differently.
        ``remove`` (B, 8): how far each type shall be removed, 0..1, and 1 if that was an instruction.

    Args:
        width: Channels of the first convolution; three times as many at the grid's resolution.
        blocks: Residual blocks at the grid's resolution, steered by the embedding and by what shall be removed.
        trunk: Residual blocks at the grid's resolution before these, from which the embedding is made, too.
        grid: Cells along each side of the picture, G.
        bins: Cells along brightness.
        embedding: Size of the embedding.
    """

    uses_place: ClassVar[bool] = True
    overlap: ClassVar[int] = 8
    size_multiple: ClassVar[int] = 8

    def __init__(
        self, width: int = 32, blocks: int = 4, trunk: int = 4, grid: int = 12, bins: int = 8, embedding: int = 64
    ) -> None:
        super().__init__()
        self.cells, self.bins = grid, bins
        wide = 3 * width
        condition = embedding + len(TYPES) + 1
        self.scene = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, wide, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1),
        )
        self.trunk = nn.Sequential(*(Residual(wide) for _ in range(trunk)))
        self.mix = nn.Sequential(nn.Linear(2 * wide, 2 * wide), nn.ReLU(), nn.Linear(2 * wide, embedding))
        self.presence = nn.Linear(embedding, len(TYPES))
        self.degree = nn.Linear(embedding, len(TYPES) * len(DEGREES))
        self.blocks = nn.ModuleList([Block(wide, condition) for _ in range(blocks)])
        self.head = nn.Conv2d(wide, bins * COEFFICIENTS, 1)
        for parameter in self.head.parameters():  # at first the identity: training starts from "do no harm"
            nn.init.zeros_(parameter)

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`RestorationNetwork.analyse`; the tensors are listed in the class docstring."""
        check_pictures(x)
        with torch.autocast(x.device.type, enabled=False):
            view = thumbnail(x.float(), 8 * self.cells)[:, None]
            views = view if self.training else torch.cat([view, view.flip(4)], 1)
            features = self.trunk(self.scene((views.flatten(0, 1) - 0.5) * 4))
            embedding = self.mix(feature_statistics(features))
            count = views.shape[1]
            presence = self.presence(embedding).unflatten(0, (-1, count)).mean(1)
            degree = self.degree(embedding).view(-1, count, len(TYPES), len(DEGREES)).mean(1)
        return {
            "presence": presence,
            "degree": degree,
            "embedding": embedding.unflatten(0, (-1, count)),
            "features": features.unflatten(0, (-1, count)),
            "remove": by_estimate(presence),
        }

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`RestorationNetwork.forward`."""
        check_pictures(x)
        if context is None:
            context = self.analyse(x)
        with torch.autocast(x.device.type, enabled=False):
            out = apply_grid(x.float(), self.grid(context, x.shape[0]), context.get(PLACE))
        return out.to(x.dtype)

    def grid(self, context: Context, batch: int) -> torch.Tensor:
        """The grids of ``batch`` pictures or tiles, (B, 12, bins, G, G)."""
        features, embedding, remove = (recall(context, n, batch) for n in ("features", "embedding", "remove"))
        count = embedding.shape[1]
        condition = torch.cat([embedding, remove[:, None].expand(-1, count, -1)], 2).flatten(0, 1)
        features = features.flatten(0, 1)
        for block in self.blocks:
            features = block(features, condition)
        grids = self.head(features).view(batch, count, COEFFICIENTS, self.bins, self.cells, self.cells)
        if count == 1:
            return grids[:, 0]
        as_it_is, mirrored = grids.unbind(1)
        return (as_it_is + mirrored.flip(4)) / 2


def apply_grid(x: torch.Tensor, grid: torch.Tensor, place: torch.Tensor | None = None) -> torch.Tensor:
    """Transform each pixel by what the grid holds at its place and brightness.

    Args:
        x: (B, 3, H, W), [0, 1], pictures or tiles.
        grid: (B, 12, bins, G, G), stretched over whole pictures: logarithms of the 3 gains, 6 factors of the other two
            channels each, 3 offsets.
        place: Where the tiles lie, see :data:`moir.networks.base.PLACE`; None: ``x`` are whole pictures.

    Returns:
        (B, 3, H, W), not clamped.
    """
    luma = (x * torch.tensor(LUMA, device=x.device)[:, None, None]).sum(1).clamp(0, 1)
    gain, others, offset = slice_grid(grid, luma, place).split([3, 6, 3], dim=1)
    red, green, blue = x.split(1, dim=1)
    across = torch.cat([green, blue, red, blue, red, green], 1) * others
    return x * gain.exp() + across[:, 0::2] + across[:, 1::2] + offset


def bilateral_grid(**options: Any) -> BilateralGrid:
    """The size that is shipped."""
    return build(BilateralGrid, {}, options)


def test_bilateral_grid(**options: Any) -> BilateralGrid:
    """A tiny one, for tests."""
    return build(BilateralGrid, {"width": 4, "blocks": 1, "trunk": 1, "grid": 4, "bins": 3, "embedding": 8}, options)
