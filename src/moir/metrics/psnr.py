"""Peak signal-to-noise ratio."""

import torch

from moir.base.errors import TensorShapeError


def psnr(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """PSNR of each picture over all channels, in dB, for a data range of 1.

    PSNR = -10 log10(mean squared error), computed in float64. The restoration papers average this value over pictures;
    none pools the error first.

    Args:
        prediction: (B, C, H, W); clamp it to [0, 1] first if the protocol says so.
        target: (B, C, H, W), [0, 1].

    Returns:
        (B,), float64; infinity where the pictures are equal.

    Raises:
        TensorShapeError: The shapes differ.

    Examples:
        >>> psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1))
        tensor([20.0000], dtype=torch.float64)
    """
    if prediction.shape != target.shape or prediction.dim() != 4:
        raise TensorShapeError(f"expected two (B, C, H, W) of one shape, got {prediction.shape} and {target.shape}")
    error = (prediction.double() - target.double()).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)
