"""Dehazing with the dark channel prior."""

import cv2
import numpy as np

from moir.evaluation.baselines.base import Baseline, Pixels

PATCH = 15
"""Side of the patch of the dark channel, pixels (the paper's)."""
KEPT = 0.95
"""Share of the haze that is removed: a little is left so that distance is still felt (the paper's omega)."""
LEAST_TRANSMISSION = 0.1
"""Where less light comes through than this, dividing by it would only lift noise (the paper's t0)."""
RADIUS, EPSILON = 60, 1e-3
"""Window and smoothness of the guided filter. The first paper refines by soft matting; the filter is its authors' own
fast replacement, with the settings they give for haze removal."""


def dark_channel(pixels: Pixels) -> Pixels:
    """J = (I - A) / max(t, t0) + A, with t = 1 - omega dark(I / A), refined by a guided filter."""
    light = atmospheric_light(pixels)
    transmission = 1 - KEPT * darkest(pixels / light)
    guide = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    transmission = guided_filter(guide, transmission, RADIUS, EPSILON)
    restored: Pixels = (pixels - light) / np.maximum(transmission, LEAST_TRANSMISSION)[..., None] + light
    return restored


def darkest(pixels: Pixels) -> Pixels:
    """The dark channel, (H, W): the least value of any channel in the patch around each pixel."""
    dark: Pixels = cv2.erode(pixels.min(-1), np.ones((PATCH, PATCH), np.uint8))
    return dark.reshape(pixels.shape[:2])


def atmospheric_light(pixels: Pixels) -> Pixels:
    """The colour of the haze, (3,): the brightest pixel among the 0.1% with the brightest dark channel."""
    dark = darkest(pixels).ravel()
    haziest = np.argsort(dark, kind="stable")[-max(1, dark.size // 1000) :]
    colours = pixels.reshape(-1, 3)[haziest]
    light: Pixels = colours[colours.sum(-1).argmax()]
    return np.maximum(light, 1e-3)  # a black picture has no haze to divide by


def guided_filter(guide: Pixels, x: Pixels, radius: int, epsilon: float) -> Pixels:
    """Smooth ``x``, keeping the edges of ``guide``.

    He, Sun, Tang, "Guided image filtering", ECCV 2010, algorithm 1, with box means; all are (H, W).
    """

    def mean(values: Pixels) -> Pixels:
        side = 2 * radius + 1
        # Outside the picture nothing is known: means are over the part of the window that is inside.
        total = cv2.boxFilter(values, cv2.CV_64F, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
        found: Pixels = total.reshape(values.shape) / count
        return found

    ones = np.ones(guide.shape, np.float64)
    count = cv2.boxFilter(
        ones, cv2.CV_64F, (2 * radius + 1,) * 2, normalize=False, borderType=cv2.BORDER_CONSTANT
    ).reshape(guide.shape)
    guide, x = guide.astype(np.float64), x.astype(np.float64)
    mean_guide, mean_x = mean(guide), mean(x)
    slope = (mean(guide * x) - mean_guide * mean_x) / (mean(guide * guide) - mean_guide**2 + epsilon)
    offset = mean_x - slope * mean_guide
    smooth: Pixels = mean(slope) * guide + mean(offset)
    return smooth


DARK_CHANNEL = Baseline(
    "dark_channel",
    "dark channel prior, 15x15 px, omega 0.95, t0 0.1, guided filter of radius 60",
    "He, Sun, Tang, Single image haze removal using dark channel prior, CVPR 2009 and IEEE TPAMI 2011",
    ("haze",),
    dark_channel,
)
