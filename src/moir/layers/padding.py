"""Padding to a size multiple, for pictures of any size."""

import torch
import torch.nn.functional as F

from moir.layers import tracing


@tracing.traced_as(tracing.pad_to_multiple)
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


@tracing.traced_as(tracing.reflect_pad)
def reflect_pad(x: torch.Tensor, left: int, right: int, top: int, bottom: int) -> torch.Tensor:
    """Mirror at the borders, as often as it takes: torch's reflection, and defined where a border exceeds the picture.

    Args:
        x: (B, C, H, W), any H, W >= 1.
        left, right, top, bottom: Pixels to add, >= 0.

    Returns:
        (B, C, top + H + bottom, left + W + right).
    """
    height, width = x.shape[-2:]
    if max(left, right) < width and max(top, bottom) < height:
        return F.pad(x, (left, right, top, bottom), mode="reflect")
    rows = _mirrored(height, top, bottom, x.device)
    columns = _mirrored(width, left, right, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _mirrored(length: int, before: int, after: int, device: torch.device) -> torch.Tensor:
    """Which pixel stands at each place of a mirrored axis; the mirror images repeat every 2 (length - 1) pixels."""
    period = max(1, 2 * (length - 1))
    place = torch.arange(-before, length + after, device=device) % period
    return torch.minimum(place, (period - place) % period) if length > 1 else torch.zeros_like(place)
