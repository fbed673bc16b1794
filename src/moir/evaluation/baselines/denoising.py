"""Denoising: non-local means, wavelets, total variation, median, BM3D. The noise level is estimated."""

import importlib

import cv2

from moir.base.errors import MissingExtraError
from moir.evaluation.baselines.base import Baseline, Pixels
from moir.evaluation.baselines.noise_level import noise_level

NOISE_FREE = 0.1 / 255
"""A picture with less noise than this is left alone: the filters' strength is a multiple of it, and may not be 0."""

TV_WEIGHT = 1.2
"""Weight of the total variation per standard deviation of the noise; between 0.8 and 2 it hardly matters."""


def nlm(pixels: Pixels) -> Pixels:
    """Non-local means in the fast form (Darbon et al. 2008), h = 0.6 sigma with the noise's part taken off."""
    from skimage.restoration import denoise_nl_means

    sigma = noise_level(pixels)
    if sigma < NOISE_FREE:
        return pixels
    restored: Pixels = denoise_nl_means(
        pixels, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
    )
    return restored


def wavelet(pixels: Pixels) -> Pixels:
    """Soft thresholds of BayesShrink in YCbCr, Daubechies 1."""
    try:
        importlib.import_module("pywt")  # scikit-image would say less helpfully that it is missing
    except ImportError as error:
        raise MissingExtraError(
            "the baseline 'wavelet' needs PyWavelets: pip install 'moir[baselines]', or pip install PyWavelets"
        ) from error
    from skimage.restoration import denoise_wavelet

    if noise_level(pixels) < NOISE_FREE:
        return pixels
    restored: Pixels = denoise_wavelet(pixels, method="BayesShrink", convert2ycbcr=True, channel_axis=-1)
    return restored


def tv(pixels: Pixels) -> Pixels:
    """Chambolle's projection; the weight is :data:`TV_WEIGHT` times the estimated noise level."""
    from skimage.restoration import denoise_tv_chambolle

    sigma = noise_level(pixels)
    if sigma < NOISE_FREE:
        return pixels
    restored: Pixels = denoise_tv_chambolle(pixels, weight=TV_WEIGHT * sigma, channel_axis=-1)
    return restored


def median(pixels: Pixels) -> Pixels:
    """Median of 3x3 neighbours in each channel."""
    restored: Pixels = cv2.medianBlur(pixels, 3).reshape(pixels.shape)
    return restored


def bm3d(pixels: Pixels) -> Pixels:
    """BM3D in the opponent colour space, with the estimated noise level."""
    try:
        package = importlib.import_module("bm3d")
    except ImportError as error:
        raise MissingExtraError(
            "the baseline 'bm3d' needs the package bm3d, which moir never installs because its licence allows "
            "non-commercial use only; if that suits you: pip install bm3d"
        ) from error

    sigma = noise_level(pixels)
    if sigma < NOISE_FREE:
        return pixels
    restored: Pixels = package.bm3d_rgb(pixels, sigma)
    return restored


NLM = Baseline(
    "nlm",
    "non-local means, 5x5 patches in 13x13 px, h = 0.6 sigma, sigma estimated",
    "Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005",
    ("noise",),
    nlm,
)
WAVELET = Baseline(
    "wavelet",
    "wavelet shrinkage (BayesShrink) in YCbCr, sigma estimated",
    "Chang, Yu, Vetterli, Adaptive wavelet thresholding for image denoising and compression, IEEE TIP 2000",
    ("noise",),
    wavelet,
)
TV = Baseline(
    "tv",
    f"total variation, weight {TV_WEIGHT:g} sigma, sigma estimated",
    "Chambolle, An algorithm for total variation minimization and applications, JMIV 2004",
    ("noise",),
    tv,
)
MEDIAN = Baseline(
    "median",
    "median of 3x3 px",
    "Tukey, Exploratory data analysis, 1977",
    ("noise", "rain", "snow"),
    median,
)
BM3D = Baseline(
    "bm3d",
    "block matching and 3D filtering, sigma estimated",
    "Dabov, Foi, Katkovnik, Egiazarian, Image denoising by sparse 3-D transform-domain collaborative filtering, "
    "IEEE TIP 2007",
    ("noise",),
    bm3d,
)
