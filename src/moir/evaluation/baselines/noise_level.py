"""How strong the noise in a picture is, from the picture alone."""

import cv2
import numpy as np

from moir.evaluation.baselines.base import Pixels

_ROOT = 3**0.5
_DB2_HIGH_PASS = np.array([1 - _ROOT, -(3 - _ROOT), 3 + _ROOT, -(1 + _ROOT)]) / (4 * 2**0.5)
"""The wavelet filter of Daubechies with two vanishing moments: it answers 0 to constants and ramps."""

_MEDIAN_OF_NORMAL = 0.6744897501960817
"""Median of the absolute value of a standard normal variable."""


def noise_level(pixels: Pixels) -> float:
    """Standard deviation of white Gaussian noise, mean over the channels.

    The median of the absolute diagonal wavelet coefficients of the finest scale, over 0.6745 (Donoho, Johnstone, "Ideal
    spatial adaptation by wavelet shrinkage", Biometrika 1994, section 4.2). Coefficients that are exactly zero, as in
    flat or saturated areas, do not count. It is what scikit-image's ``estimate_sigma`` computes, without its need of
    PyWavelets.

    Args:
        pixels: (H, W, 3), [0, 1].

    Returns:
        On the scale of the pixels; 0 for a picture without detail, or one too small to tell (below 4 px).
    """
    if min(pixels.shape[:2]) < len(_DB2_HIGH_PASS):
        return 0.0
    filtered = cv2.sepFilter2D(pixels, cv2.CV_64F, _DB2_HIGH_PASS, _DB2_HIGH_PASS, borderType=cv2.BORDER_REFLECT)
    found = []
    for channel in np.moveaxis(filtered[::2, ::2], -1, 0):
        detail = np.abs(channel[channel != 0])
        found.append(np.median(detail) / _MEDIAN_OF_NORMAL if detail.size else 0.0)
    return float(np.mean(found))
