"""Damage that moir had no part in: Pillow, scikit-image, OpenCV and NumPy on clean pictures, and pairs of Rain100H.

Snow is missing: none of these libraries makes any. Beside damage of the types that moir knows there is some of none.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
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
        types: The degradation types that should be found; none: the picture is sound, or its damage is of no type.
        make: From a clean picture and a source of random numbers to the damaged one.
    """

    name: str
    types: tuple[str, ...]
    make: Callable[[Pixels, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Damaged:
    """Pictures with the same damage.

    Attributes:
        name, types: See :class:`Damage`.
        pictures: As they are given to moir.
        targets: The clean ones.
    """

    name: str
    types: tuple[str, ...]
    pictures: list[Pixels]
    targets: list[Pixels]


def damaged(root: Path, count: int) -> Iterator[Damaged]:
    """Pictures with each of :data:`DAMAGES`, and the first 25 pairs of Rain100H.

    Args:
        root: The data root, with cid22_validation and the first 25 of Rain100H.
        count: Clean pictures to damage.
    """
    yield from _made(root, count, DAMAGES, 0)
    pairs = list(find("rain100h_first25", root))
    targets = [_cut(pair.target.numpy()) for pair in pairs]
    rainy = [_cut(pair.input.numpy()) for pair in pairs if pair.input is not None]
    yield Damaged("Rain100H, rainy", ("rain",), rainy, targets)
    yield Damaged("Rain100H, clean targets", (), targets, targets)


def of_no_type(root: Path, count: int) -> Iterator[Damaged]:
    """Pictures with damage that is none of the types; arguments as for :func:`damaged`."""
    yield from _made(root, count, OF_NO_TYPE, 1000)


def _made(root: Path, count: int, damages: Sequence[Damage], seed: int) -> Iterator[Damaged]:
    found = find("cid22_validation", root)
    clean = [_cut(found.load(pair).target.numpy()) for pair in found.pairs[:count]]
    for number, damage in enumerate(damages, seed):
        seeds = np.random.SeedSequence(number).spawn(len(clean))
        pictures = [damage.make(x, np.random.default_rng(own)) for x, own in zip(clean, seeds, strict=True)]
        yield Damaged(damage.name, damage.types, pictures, clean)


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


def _posterise(levels: int, x: Pixels, rng: np.random.Generator) -> Pixels:
    """So many levels in each channel, evenly spread."""
    return np.round(np.round(x / 255 * (levels - 1)) / (levels - 1) * 255).astype(np.uint8)


def _dithered(colours: int, x: Pixels, rng: np.random.Generator) -> Pixels:
    """A palette of so many colours, with error diffusion, as in a GIF."""
    picture = Image.fromarray(x)
    palette = picture.quantize(colours)
    return np.asarray(picture.quantize(colours, palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))


def _enlarged(factor: int, method: Image.Resampling, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Shrunk by averaging, and brought back to its size."""
    picture = Image.fromarray(x)
    small = picture.resize((picture.width // factor, picture.height // factor), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, method))


def _brighter(factor: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Exposed too long: what is too bright is lost."""
    return np.clip(np.round(x * factor), 0, 255).astype(np.uint8)


def _cast(strength: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    """The light was of another colour: warm or cold."""
    gains = np.array([1.0, 1.0, 1 - strength]) if rng.random() < 0.5 else np.array([1 - strength, 1.0, 1.0])
    return np.round(x * gains).astype(np.uint8)


def _pale(share: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Colours as of an old print."""
    grey = x @ np.array([0.299, 0.587, 0.114])
    return np.round(x * (1 - share) + grey[..., None] * share).astype(np.uint8)


def _scratched(count: int, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Thin bright and dark lines all over, as on a print or a film."""
    picture = Image.fromarray(x)
    draw = ImageDraw.Draw(picture)
    for _ in range(count):
        start, angle = rng.uniform(0, picture.size), rng.uniform(0, np.pi)
        end = start + rng.uniform(20, 200) * np.array([np.cos(angle), np.sin(angle)])
        shade = int(rng.choice([30, 235]))
        draw.line((*start, *end), fill=(shade, shade, shade), width=1)
    return np.asarray(picture)


def _written_on(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Words all over, half transparent."""
    picture = Image.fromarray(x)
    layer = Image.new("RGB", picture.size)
    draw = ImageDraw.Draw(layer)
    for top in range(0, picture.height, 48):
        draw.text((int(rng.integers(40)), top), "SAMPLE  " * 20, fill=(255, 255, 255))
    return np.asarray(Image.blend(picture, Image.composite(layer, picture, layer.convert("L")), 0.5))


def _fringed(shift: int, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Red and blue do not lie on green, as behind a poor lens."""
    return np.stack([np.roll(x[..., 0], shift, 1), x[..., 1], np.roll(x[..., 2], -shift, 1)], 2)


def _striped(strength: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Rows that a sensor reads out brighter or darker."""
    return np.clip(np.round(x + rng.normal(0, strength, (len(x), 1, 1))), 0, 255).astype(np.uint8)


def _moire(strength: float, x: Pixels, rng: np.random.Generator) -> Pixels:
    """Two gratings that nearly agree, as of a screen that was photographed."""
    rows, columns = np.mgrid[: x.shape[0], : x.shape[1]]
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(2.5, 4)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    slow, phase = np.cos(2 * np.pi * rows / (9 * pitch)), np.arange(3)
    beat = slow[..., None] * np.cos(2 * np.pi * along[..., None] / pitch + phase)
    return np.clip(np.round(x + 255 * strength * beat), 0, 255).astype(np.uint8)


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
OF_NO_TYPE = [
    *(
        Damage(f"skimage salt and pepper, {share:.0%}", (), partial(_noise, "s&p", {"amount": share}))
        for share in (0.01, 0.05)
    ),
    Damage("Pillow palette of 32 colours, dithered", (), partial(_dithered, 32)),
    *(Damage(f"NumPy, {levels} levels", (), partial(_posterise, levels)) for levels in (8, 16)),
    Damage("Pillow half size, brought back by nearest", (), partial(_enlarged, 2, Image.Resampling.NEAREST)),
    Damage("Pillow half size, brought back by bicubic", (), partial(_enlarged, 2, Image.Resampling.BICUBIC)),
    Damage("Pillow quarter size, brought back by bicubic", (), partial(_enlarged, 4, Image.Resampling.BICUBIC)),
    *(Damage(f"NumPy, {factor} times too bright", (), partial(_brighter, factor)) for factor in (1.3, 1.8)),
    *(Damage(f"NumPy colour cast, {strength:.0%}", (), partial(_cast, strength)) for strength in (0.15, 0.35)),
    Damage("NumPy, half the colour lost", (), partial(_pale, 0.5)),
    Damage("Pillow, 60 scratches", (), partial(_scratched, 60)),
    Damage("Pillow, words all over", (), _written_on),
    Damage("NumPy, red and blue shifted by 2 px", (), partial(_fringed, 2)),
    Damage("NumPy, striped rows, sigma 8", (), partial(_striped, 8)),
    Damage("NumPy moire, strength 0.1", (), partial(_moire, 0.1)),
]
"""Damage that is none of the types. What an expert could do about some of it is little; what it can do is harm."""
