"""Colours under full transparency are arbitrary (often black): keep them out of what a network sees."""

import torch
import torch.nn.functional as F

from moir.picture.picture import Picture


def prepare_colour(picture: Picture) -> torch.Tensor:
    """Return the colours to restore: fully transparent pixels take on the colour of their visible surroundings.

    A network looks at neighbourhoods, so that arbitrary colours at alpha 0 would bleed into the visible edge. Here
    they are filled by "push-pull": visible colours are averaged down a pyramid, and each level fills the holes of the
    finer one. Visible pixels are returned as they are; ``picture.with_rgb`` puts the hidden ones back afterwards.

    Returns:
        (3, H, W) float32 in [0, 1]; ``picture.rgb`` itself if nothing (or everything) is fully transparent.
    """
    if picture.alpha is None:
        return picture.rgb
    hidden = picture.alpha == 0
    if not bool(hidden.any()) or bool(hidden.all()):
        return picture.rgb
    # Weighted by alpha: a hardly visible pixel says less about the surroundings than an opaque one.
    weight = picture.alpha[None, None]
    filled = _from_coarser(picture.rgb[None] * weight, weight)[0]
    return torch.where(hidden, filled.clamp_(0, 1), picture.rgb)


def _from_coarser(weighted: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return smooth colours (1, 3, H, W) for everywhere, from the known ones around.

    Args:
        weighted: (1, 3, H, W) colours times weight.
        weight: (1, 1, H, W), 0 where the colour is unknown.
    """
    weighted, weight, size = _halved(weighted), _halved(weight), weight.shape[-2:]
    known = weight > 0
    colour = weighted / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    if not bool(known.all()):
        colour = torch.where(known, colour, _from_coarser(weighted, weight))
    return F.interpolate(colour, size=size, mode="bilinear", align_corners=False)


def _halved(planes: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(planes, 2, ceil_mode=True)
