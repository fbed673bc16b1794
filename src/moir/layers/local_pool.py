"""Average pooling over a window around every pixel, in place of the mean over the whole picture."""

import torch
import torch.nn.functional as F

from moir.layers import tracing
from moir.layers.precision import at_least_float32


@tracing.traced_as(tracing.local_mean)
def local_mean(x: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """The mean over a window around every pixel: test-time local converter, TLC (Chu et al., arXiv 2112.04491).

    A network trained on patches pools over a patch; on whole pictures its global mean would be a statistic it never
    saw. Where the window fits, it is averaged; near the border the nearest full window counts. A side shorter than the
    window is averaged whole; if both are, this is the global mean.

    Args:
        x: (B, C, H, W), any H, W >= 1.
        kernel: Height and width of the window, pixels.

    Returns:
        (B, C, H, W), or (B, C, 1, 1) if the window covers the whole of ``x``; float32 at least.
    """
    wide = at_least_float32(x)
    height, width = x.shape[-2:]
    if kernel[0] >= height and kernel[1] >= width:
        return wide.mean(dim=(2, 3), keepdim=True)
    rows, columns = min(kernel[0], height), min(kernel[1], width)
    means = _running_mean(_running_mean(wide, columns).transpose(2, 3), rows).transpose(2, 3)
    down, right = height - means.shape[2], width - means.shape[3]
    return F.pad(means, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")


def _running_mean(x: torch.Tensor, length: int) -> torch.Tensor:
    """Means of ``length`` neighbours along the last axis; it becomes ``length - 1`` shorter.

    One axis at a time: an integral image over both sums up a whole picture and loses digits to it.
    """
    sums = F.pad(x.cumsum(dim=-1), (1, 0))
    return (sums[..., length:] - sums[..., : sums.shape[-1] - length]) / length
