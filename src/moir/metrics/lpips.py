"""LPIPS, a perceptual distance, through the optional package of its authors."""

from functools import lru_cache
from typing import Any, Literal

import torch

from moir.base.errors import MissingExtraError, TensorShapeError

Backbone = Literal["vgg", "alex"]


def lpips(prediction: torch.Tensor, target: torch.Tensor, backbone: Backbone = "vgg") -> torch.Tensor:
    """LPIPS of each picture (Zhang et al., CVPR 2018), smaller is closer. Needs the extra ``perceptual``.

    Args:
        prediction: (B, 3, H, W), RGB, [0, 1].
        target: (B, 3, H, W), RGB, [0, 1].
        backbone: ``vgg`` (MoCE-IR) or ``alex`` (the authors' advice for judging pictures).

    Returns:
        (B,), float64.

    Raises:
        MissingExtraError: The package is not installed.
        TensorShapeError: The shapes differ or are not (B, 3, H, W).
    """
    if prediction.shape != target.shape or prediction.dim() != 4 or prediction.shape[1] != 3:
        raise TensorShapeError(f"expected two (B, 3, H, W) of one shape, got {prediction.shape} and {target.shape}")
    network = lpips_network(backbone)
    with torch.inference_mode():
        # The network was trained on [-1, 1].
        distance: torch.Tensor = network(prediction.float() * 2 - 1, target.float() * 2 - 1)
    return distance.double().flatten()


@lru_cache(maxsize=2)
def lpips_network(backbone: Backbone = "vgg") -> Any:
    """The network with its published weights, loaded once; the first use downloads those of the backbone.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        import lpips as package
    except ImportError as error:
        raise MissingExtraError(
            f"LPIPS needs the package lpips and a torchvision that fits this torch ({error}); "
            'install them with: pip install "moir[perceptual]"'
        ) from error
    return package.LPIPS(net=backbone, verbose=False).eval().requires_grad_(False)
