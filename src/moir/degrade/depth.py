"""Depth without a network: what a photograph's depth usually looks like, from position, relief and the picture itself.

Published haze pipelines take depth from a network or from a depth camera (RESIDE: NYU2, UniRestorer: MegaDepth). A real
depth map can be passed to haze instead of these fields.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from moir.degrade.fields import smooth_field


@dataclass(frozen=True)
class DepthParams:
    """Parameters of a depth field.

    Attributes:
        horizon: Height of the horizon as a fraction of the picture, from the top; above it all is far.
        power: How fast depth grows towards the horizon (1: linearly).
        tilt: Rotation of the ground plane, degrees.
        relief: Share of a smooth random relief, 0..1.
        cue: Share of an image cue (pale and bright is far, as sky is), 0..1.
    """

    horizon: float
    power: float
    tilt: float
    relief: float
    cue: float


def depth_field(image: torch.Tensor, p: DepthParams, generator: torch.Generator) -> torch.Tensor:
    """A depth field for one picture, (H, W) in [0, 1], 1 the farthest.

    Args:
        image: (3, H, W), [0, 1]; only its pale bright regions are used, as a cue for sky.
        p: The parameters.
        generator: Source of the relief, on the device of ``image``.
    """
    height, width = image.shape[-2:]
    device = image.device
    y = torch.linspace(0, 1, height, device=device)[:, None]
    x = torch.linspace(-0.5, 0.5, width, device=device)[None]
    line = y + math.tan(math.radians(p.tilt)) * x
    ground = (1 - (line - p.horizon) / max(1 - p.horizon, 0.05)).clamp(0, 1) ** p.power
    relief = smooth_field(height, width, generator, cells=2.5)
    depth = (1 - p.relief - p.cue) * ground + p.relief * relief
    if p.cue > 0:
        depth = depth + p.cue * _pale(image)
    return (depth / depth.max().clamp_min(1e-6)).clamp(0, 1)


def _pale(image: torch.Tensor) -> torch.Tensor:
    """Large pale regions: the smallest channel, averaged over about an eighth of the picture; (H, W)."""
    low = image.min(0).values[None, None]
    height, width = image.shape[-2:]
    coarse = F.adaptive_avg_pool2d(low, (min(height, 8), min(width, 8)))
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
