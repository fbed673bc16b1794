"""Low light: CLAHE, and a gamma that brings the mean to mid-grey."""

import cv2
import numpy as np

from moir.evaluation.baselines.base import Baseline, Pixels


def clahe(pixels: Pixels) -> Pixels:
    """Contrast-limited adaptive histogram equalisation of the lightness, in 16 bit so that it adds no steps."""
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab)  # lightness 0..100
    equaliser = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    lightness = np.round(lab[..., 0].clip(0, 100) * (65535 / 100)).astype(np.uint16)
    lab[..., 0] = equaliser.apply(lightness).reshape(lightness.shape) * np.float32(100 / 65535)
    restored: Pixels = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    return restored


def gamma(pixels: Pixels) -> Pixels:
    """X ** g with g = log 0.5 / log(mean luma): the mean goes to about 0.5. Pictures brighter than that are left."""
    mean = float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())
    if not 0 < mean < 0.5:
        return pixels
    restored: Pixels = pixels ** np.float32(np.log(0.5) / np.log(mean))
    return restored


CLAHE = Baseline(
    "clahe",
    "CLAHE of the lightness (Lab), clip limit 2, 8x8 tiles",
    "Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994",
    ("lowlight", "haze"),
    clahe,
)
GAMMA = Baseline(
    "gamma",
    "power law that brings the mean luma to 0.5; lightens only",
    "power-law transformation, Gonzalez, Woods, Digital image processing, section 3.2",
    ("lowlight",),
    gamma,
)
