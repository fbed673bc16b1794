"""Methods that a user would otherwise pick: the classics of each task, all blind, through scikit-image and OpenCV."""

import importlib
from typing import TYPE_CHECKING

from moir.base.names import check_name

if TYPE_CHECKING:
    from moir.evaluation.baselines.base import Baseline

__all__ = ["baseline", "list_baselines"]

_HERE = "moir.evaluation.baselines"
# Lazy, so that the names can be listed without torch.
_BASELINES: dict[str, str] = {
    "identity": "base:IDENTITY",
    "nlm": "denoising:NLM",
    "wavelet": "denoising:WAVELET",
    "tv": "denoising:TV",
    "median": "denoising:MEDIAN",
    "bm3d": "denoising:BM3D",
    "dark_channel": "dehazing:DARK_CHANNEL",
    "clahe": "lighting:CLAHE",
    "gamma": "lighting:GAMMA",
    "wiener": "deblurring:WIENER",
    "richardson_lucy": "deblurring:RICHARDSON_LUCY",
    "deblock": "deblocking:DEBLOCK",
}


def list_baselines() -> list[str]:
    """Names that :func:`baseline` accepts, by task. ``wavelet`` and ``bm3d`` need a package that the core does not.

    Examples:
        >>> list_baselines()[:3]
        ['identity', 'nlm', 'wavelet']
    """
    return list(_BASELINES)


def baseline(name: str) -> "Baseline":
    """The baseline of this name.

    Raises:
        UnknownNameError: No such baseline; the message gives near misses.

    Examples:
        >>> baseline("dark_channel").types
        ('haze',)
    """
    module, attribute = _BASELINES[check_name(name, _BASELINES, "baseline")].split(":")
    found: Baseline = getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)
    return found
