"""What varies by less than the rounding of a file, taken out before it is multiplied."""

import torch
import torch.nn.functional as F

RADIUS = 8
"""Of the windows, pixels: with it a window holds a block of a JPEG file, and its neighbours."""


def flatten(x: torch.Tensor, levels: float) -> torch.Tensor:
    """Flatten what varies by less than some levels of 255, and leave the rest.

    A guided filter of the picture by itself (He, Sun and Tang, "Guided Image Filtering", ECCV 2010, eq. 5 and 6), with
    one coefficient for all channels. The removal of dense haze multiplies differences several times, and with them the
    rounding of the file and the blocks of its JPEG compression, which nobody saw before.

    Args:
        x: (B, 3, H, W), [0, 1].
        levels: Where the channels' variances over a window add up to the square of this, half of the detail is left;
            above 0.

    Returns:
        The same shape and type.
    """
    with torch.autocast(x.device.type, enabled=False):
        exact = x.float()
        mean = _mean(exact)
        variance = (_mean(exact.square()) - mean.square()).clamp_min(0).sum(1, keepdim=True)
        kept = _mean(variance / (variance + (levels / 255) ** 2))
        return (kept * exact + (1 - kept) * _mean(mean)).to(x.dtype)


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Over windows, of what lies in the picture."""
    return F.avg_pool2d(x, 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False)
