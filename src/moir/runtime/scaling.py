"""Networks that make pictures larger: where their tiles go, and what stands for the input beside the result."""

import dataclasses

import torch
import torch.nn.functional as F

from moir.runtime.tiling import Span


def scaled(span: Span, scale: int) -> Span:
    """Where a tile's result lies, if it is ``scale`` times larger than the tile; so is what it shares with neighbours.

    Examples:
        >>> scaled(Span(8, 40, before=16, blend=8), 2)
        Span(start=16, stop=80, before=32, after=0, blend=16)
    """
    return dataclasses.replace(span, **{name: value * scale for name, value in dataclasses.asdict(span).items()})


def enlarged(pictures: torch.Tensor, scale: int) -> torch.Tensor:
    """Pictures (B, 3, H, W), [0, 1], at ``scale`` times their size, (B, 3, scale * H, scale * W), bicubic, [0, 1]."""
    if scale == 1:
        return pictures
    return F.interpolate(pictures, scale_factor=scale, mode="bicubic", align_corners=False).clamp_(0, 1)
