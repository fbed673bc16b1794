"""Flicker: how much the error of a restored clip changes from frame to frame."""

import torch
import torch.nn.functional as F

BLOCK = 16
"""The error is averaged over blocks of this side, pixels: eyes see areas pump, not the grain that is left."""


def flicker(restored: torch.Tensor, clean: torch.Tensor) -> float:
    """Root mean square of the change of the error between neighbouring frames, in 8-bit levels.

    The error is the restored minus the clean clip, so that movement in the scene does not count, and a constant error
    does not either: only what pumps.

    Args:
        restored: (T, 3, H, W), [0, 1], T >= 2.
        clean: The same clip without damage.
    """
    error = F.avg_pool2d(restored - clean, BLOCK, ceil_mode=True)
    return float((error[1:] - error[:-1]).square().mean().sqrt() * 255)
