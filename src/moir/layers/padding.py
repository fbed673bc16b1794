"""Padding to a size multiple, for pictures of any size."""

import torch
import torch.nn.functional as F


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad right and bottom so that both sides are multiples of ``multiple``.

    The border is mirrored (reflect) where the picture is large enough for it, and repeated (replicate) where it is not,
    so that a 1x1 picture works too. Crop the result with ``y[..., :H, :W]``.

    Args:
        x: (B, C, H, W), any H, W >= 1.
        multiple: The size multiple, >= 1.

    Returns:
        (B, C, H', W') with H' and W' the next multiples; ``x`` itself if nothing is to be done.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return x
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)
