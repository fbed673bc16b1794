"""Deblurring with an assumed kernel: Wiener and Richardson-Lucy."""

import cv2
import numpy as np

from moir.evaluation.baselines.base import Baseline, Pixels
from moir.evaluation.baselines.noise_level import noise_level

KERNEL_SIGMA = 1.2
"""Standard deviation in pixels of the Gaussian kernel that both assume, whatever the true one is. A small one is the
safe assumption: too large a kernel rings."""
ITERATIONS = 10
"""Of Richardson-Lucy; more sharpen more, and lift more noise."""
LEAST_BALANCE, BALANCE_PER_VARIANCE = 5e-3, 20.0
"""Weight of the smoothness in Wiener's filter: a floor, and what the estimated variance of the noise adds to it."""


def wiener(pixels: Pixels) -> Pixels:
    """Wiener-Hunt deconvolution of each channel, mirrored at the border since the Fourier transform wraps around."""
    from skimage.restoration import wiener as deconvolve

    radius = int(np.ceil(4 * KERNEL_SIGMA))
    margin = 4 * radius
    line = cv2.getGaussianKernel(2 * radius + 1, KERNEL_SIGMA, cv2.CV_64F)
    balance = LEAST_BALANCE + BALANCE_PER_VARIANCE * noise_level(pixels) ** 2
    padded = np.pad(pixels.astype(np.float64), ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    channels = [deconvolve(channel, line @ line.T, balance, clip=False) for channel in np.moveaxis(padded, -1, 0)]
    restored: Pixels = np.stack(channels, -1)[margin:-margin, margin:-margin]
    return restored


def richardson_lucy(pixels: Pixels) -> Pixels:
    """X <- x * (k corr (y / (k conv x))), from x = y; a Gaussian kernel is its own mirror image."""

    def blur(values: Pixels) -> Pixels:
        blurred: Pixels = cv2.GaussianBlur(values, (0, 0), KERNEL_SIGMA, borderType=cv2.BORDER_REFLECT)
        return blurred.reshape(values.shape)

    restored = pixels
    for _ in range(ITERATIONS):
        restored = restored * blur(pixels / np.maximum(blur(restored), 1e-6))
    return restored


WIENER = Baseline(
    "wiener",
    f"Wiener-Hunt deconvolution, assumed Gaussian kernel of sigma {KERNEL_SIGMA:g} px",
    "Wiener, Extrapolation, interpolation and smoothing of stationary time series, 1949; Hunt, IEEE Trans. Computers "
    "1973",
    ("blur",),
    wiener,
)
RICHARDSON_LUCY = Baseline(
    "richardson_lucy",
    f"Richardson-Lucy, {ITERATIONS} iterations, assumed Gaussian kernel of sigma {KERNEL_SIGMA:g} px",
    "Richardson, JOSA 1972; Lucy, Astronomical Journal 1974",
    ("blur",),
    richardson_lucy,
)
