"""Damage that moir had no part in: Pillow, scikit-image, OpenCV and NumPy on clean pictures, and pairs of Rain100H.

Snow is missing: none of these libraries makes any.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter
from skimage.exposure import adjust_gamma
from skimage.filters import gaussian
from skimage.util import img_as_ubyte, random_noise

from moir.datasets import find

LARGEST = 512
"""Longest side of a picture, pixels: what is larger is cut to its centre."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""(H, W, 3), RGB."""


@dataclass(frozen=True)
class Damage:
    """One way to damage pictures.

    Attributes:
        name: In words, with the library that does it.
        types: The degradation types that should be found; none: the picture is sound.
        make: From a clean picture and a source of random numbers to the damaged one.
    """

    name: str
    types: tuple[str, ...]
    make: Callable[[Pixels, np.random.Generator], Pixels]


def damaged(root: Path, count: int) -> Iterator[tuple[str, tuple[str, ...], list[Pixels]]]:
    """What was done, the types that should be found, and the pictures.

    Args:
        root: The data root, with cid22_validation and the first 25 of Rain100H.
        count: Clean pictures to damage.
    """
    found = find("cid22_validation", root)
    clean = [_cut(found.load(pair).target.numpy()) for pair in found.pairs[:count]]
    for number, damage in enumerate(DAMAGES):
        seeds = np.random.SeedSequence(number).spawn(len(clean))
        pictures = [damage.make(x, np.random.default_rng(seed)) for x, seed in zip(clean, seeds, strict=True)]
        yield damage.name, damage.types, pictures
    pairs = list(find("rain100h_first25", root))
    yield "Rain100H, rainy", ("rain",), [_cut(pair.input.numpy()) for pair in pairs if pair.input is not None]
    yield "Rain100H, clean targets", (), [_cut(pair.target.numpy()) for pair in pairs]


def _cut(rgb: np.ndarray[Any, Any]) -> Pixels:
    """The centre of (3, H, W), [0, 1], on the grid of 8, where JPEG blocks that it may have stay in place."""
    height, width = (min(length, LARGEST) for length in rgb.shape[1:])
    top, left = (rgb.shape[1] - height) // 16 * 8, (rgb.shape[2] - width) // 16 * 8
    return np.ascontiguousarray(img_as_ubyte(rgb[:, top : top + height, left : left + width]).transpose(1, 2, 0))


def _jpeg(quality: int, x: Pixels, rng: np.random.Generator) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _pillow_blur(radius: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(radius)))


def _skimage_blur(sigma: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    return img_as_ubyte(gaussian(x, sigma, channel_axis=2))


def _opencv_blur(sigma: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    return cv2.GaussianBlur(x, (0, 0), sigma)


def _motion(length: int, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Along a line in a random direction."""
    angle, middle = rng.uniform(0, np.pi), length // 2
    end = np.round(middle * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, tuple((middle - end).tolist()), tuple((middle + end).tolist()), 1.0)
    return cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def _noise(mode: str, options: dict[str, float], x: Pixels, rng: np.random.Generator) -> Pixels:
    return img_as_ubyte(random_noise(x, mode, rng=rng, **options))


def _gamma(exponent: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    return adjust_gamma(x, exponent)


def _exposure(factor: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    return np.round(x * factor).astype(np.uint8)


def _haze(transmission: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    """As thick everywhere, in a grey airlight."""
    airlight = 255 * rng.uniform(0.8, 0.95)
    return np.round(x * transmission + airlight * (1 - transmission)).astype(np.uint8)


def _then(first: Damage, second: Damage) -> Damage:
    def both(x: Pixels, rng: np.random.Generator) -> Pixels:
        return second.make(first.make(x, rng), rng)

    return Damage(f"{first.name}, then {second.name}", (*first.types, *second.types), both)


_SOUND = Damage("untouched", (), lambda x, rng: x)
_NOISE = {
    f"skimage Gaussian noise, sigma {sigma}": ("gaussian", {"var": (sigma / 255) ** 2}) for sigma in (8, 15, 25, 50)
} | {
    "skimage Poisson noise": ("poisson", {}),
    "skimage speckle, variance 0.01": ("speckle", {"var": 0.01}),
    "skimage speckle, variance 0.05": ("speckle", {"var": 0.05}),
}
_SINGLE = [
    *(Damage(name, ("noise",), partial(_noise, mode, options)) for name, (mode, options) in _NOISE.items()),
    *(Damage(f"NumPy haze, transmission {t}", ("haze",), partial(_haze, t)) for t in (0.75, 0.5, 0.3)),
    Damage("Pillow Gaussian blur, radius 1", ("blur",), partial(_pillow_blur, 1)),
    Damage("OpenCV Gaussian blur, sigma 1.5", ("blur",), partial(_opencv_blur, 1.5)),
    Damage("skimage Gaussian blur, sigma 2.5", ("blur",), partial(_skimage_blur, 2.5)),
    *(Damage(f"OpenCV motion blur, {n} px", ("blur",), partial(_motion, n)) for n in (7, 15)),
    *(Damage(f"skimage gamma {g}", ("lowlight",), partial(_gamma, g)) for g in (1.5, 2.0, 3.0)),
    *(Damage(f"NumPy exposure, {e} of the light", ("lowlight",), partial(_exposure, e)) for e in (0.5, 0.25)),
    *(Damage(f"Pillow JPEG, quality {q}", ("jpeg",), partial(_jpeg, q)) for q in (10, 20, 30, 50, 75)),
]
_BY_NAME = {damage.name: damage for damage in _SINGLE}
DAMAGES = [
    _SOUND,
    # Nobody calls that damage; moir's own clean pictures were stored so, too.
    Damage("Pillow JPEG, quality 95", (), partial(_jpeg, 95)),
    *_SINGLE,
    _then(_BY_NAME["skimage Gaussian noise, sigma 25"], _BY_NAME["Pillow JPEG, quality 30"]),
    _then(_BY_NAME["OpenCV motion blur, 15 px"], _BY_NAME["skimage Gaussian noise, sigma 15"]),
    _then(_BY_NAME["NumPy haze, transmission 0.5"], _BY_NAME["skimage Gaussian noise, sigma 25"]),
]
