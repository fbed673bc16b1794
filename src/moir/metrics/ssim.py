"""Structural similarity, in the three forms that restoration papers report."""

from typing import Literal, get_args

import torch
from skimage.metrics import structural_similarity

from moir.base.errors import TensorShapeError
from moir.base.names import check_name

SsimForm = Literal["gaussian", "uniform", "matlab"]
"""Which window and which covariance; see :func:`ssim`."""

_OPTIONS: dict[str, dict[str, object]] = {
    "gaussian": {"gaussian_weights": True},
    "uniform": {},
    # Truncated at 3.5 sigma the window of scikit-image is the 11x11 one; only the covariance differs.
    "matlab": {"gaussian_weights": True, "use_sample_covariance": False},
}
_SIDE = {"gaussian": 11, "uniform": 7, "matlab": 11}


def ssim(prediction: torch.Tensor, target: torch.Tensor, form: SsimForm = "gaussian") -> torch.Tensor:
    """SSIM of each picture (Wang et al. 2004), K1 = 0.01, K2 = 0.03, data range 1, computed in float64.

    The index is computed for each channel and averaged over channels and over the windows that lie wholly inside the
    picture. The forms give different numbers for one pair of pictures and must not be compared with each other:

    - ``gaussian``: Gaussian window of sigma 1.5 (11x11), sample covariance (divided by N - 1): scikit-image with
      ``gaussian_weights=True`` and its defaults otherwise. MoCE-IR.
    - ``uniform``: uniform 7x7 window, sample covariance: the defaults of scikit-image. PromptIR, AirNet, AdaIR.
    - ``matlab``: the same Gaussian window, covariance divided by N: the authors' MATLAB code, which Restormer and
      MPRNet run on Y, and BasicSR's and AdaptIR's Python of it.

    Args:
        prediction: (B, C, H, W); clamp it to [0, 1] first if the protocol says so.
        target: (B, C, H, W), [0, 1].
        form: One of the above.

    Returns:
        (B,), float64, at most 1.

    Raises:
        TensorShapeError: The shapes differ, or a side is shorter than the window (7 or 11 px).
        UnknownNameError: No such form.

    Examples:
        >>> picture = torch.rand(1, 3, 16, 16)
        >>> ssim(picture, picture)
        tensor([1.], dtype=torch.float64)
    """
    check_name(form, get_args(SsimForm), "form of SSIM")
    if prediction.shape != target.shape or prediction.dim() != 4:
        raise TensorShapeError(f"expected two (B, C, H, W) of one shape, got {prediction.shape} and {target.shape}")
    if min(target.shape[-2:]) < _SIDE[form]:
        height, width = target.shape[-2:]
        raise TensorShapeError(
            f"SSIM ({form}) needs sides of at least {_SIDE[form]} px, the pictures are {width}x{height}"
        )
    values = [
        structural_similarity(y.double().numpy(), x.double().numpy(), channel_axis=0, data_range=1.0, **_OPTIONS[form])
        for x, y in zip(prediction.detach().cpu(), target.detach().cpu(), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)
