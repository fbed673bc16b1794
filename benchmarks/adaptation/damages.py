"""Damage that the shipped network was not trained on, a function of picture and seed alone.

    python benchmarks/adaptation/damages.py PICTURE FOLDER      one file of each, to look at

Each is a simple model of something that happens to pictures; where it comes from stands at the function. The camera
noise is made here, since no pairs of real noisy and clean photographs may be shipped or fetched without asking: its
model is another one than that of ``moir.degrade``, with a real colour mosaic and a real demosaicing in it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from moir.picture import from_tensor, read, write

Picture = np.ndarray  # (H, W, 3), float32, RGB, [0, 1]


def salt_and_pepper(picture: Picture, random: np.random.Generator) -> Picture:
    """Dead and saturated sites: 2 to 10 % of all values, each channel on its own, become 0 or 1."""
    share = random.uniform(0.02, 0.10)
    draw = random.random(picture.shape)
    return np.where(draw < share / 2, 0.0, np.where(draw < share, 1.0, picture))


def raindrops(picture: Picture, random: np.random.Generator) -> Picture:
    """Drops on a window: each shows the scene upside down, wide and out of focus (after Qian et al., CVPR 2018, eq. 1).

    8 to 16 drops per 256x256 pixels, radius 5 to 18 px, a soft rim, lighter above and darker below.
    """
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    out = picture.copy()
    blurred = cv2.GaussianBlur(picture, (0, 0), 2.5, borderType=cv2.BORDER_REFLECT_101)
    for _ in range(max(2, round(random.uniform(8, 16) * height * width / 256**2))):
        x, y, radius = random.uniform(0, width), random.uniform(0, height), random.uniform(5, 18)
        stretch, bend = random.uniform(1.0, 1.4), random.uniform(2.0, 4.0)
        across, down = columns - x, (rows - y) / stretch
        distance = np.sqrt(across**2 + down**2) / radius
        alpha = np.clip((1.1 - distance) / 0.25, 0, 1)[..., None]
        seen = cv2.remap(
            blurred, x - bend * across, y - bend * down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        light = 1 - 0.25 * np.clip(down / radius, -1, 1)[..., None]
        out = out * (1 - alpha) + np.clip(seen * light, 0, 1) * alpha
    return out


def moire(picture: Picture, random: np.random.Generator) -> Picture:
    """A screen photographed: stripes of red, green and blue sub-pixels, sampled by a sensor of nearly the same pitch.

    The stripes have about one cycle per pixel of the camera, so that sampling folds them to slow coloured fringes; a
    weak lens distortion bends them. Contrast 15 to 35 %.
    """
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    pitch, angle = random.uniform(0.94, 1.06), np.deg2rad(random.uniform(-4, 4))
    bend, contrast = random.uniform(-4e-7, 4e-7), random.uniform(0.15, 0.35)
    x, y = columns - width / 2, rows - height / 2
    scale = pitch * (1 + bend * (x**2 + y**2))
    across = scale * (np.cos(angle) * x - np.sin(angle) * y) + random.uniform()
    down = scale * (np.sin(angle) * x + np.cos(angle) * y) + random.uniform()
    stripes = [1 + contrast * np.cos(2 * np.pi * (across - channel / 3)) for channel in range(3)]
    lines = 1 + 0.4 * contrast * np.cos(2 * np.pi * down)
    return picture * np.stack(stripes, -1) * lines[..., None] / (1 + 0.4 * contrast)


def blurred_half(picture: Picture, random: np.random.Generator) -> Picture:
    """Out of focus and too small: a Gaussian blur of 0.8 to 1.6 px, half the size, and up again (bicubic)."""
    height, width = picture.shape[:2]
    soft = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.8, 1.6), borderType=cv2.BORDER_REFLECT_101)
    small = cv2.resize(soft, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def vignette(picture: Picture, random: np.random.Generator) -> Picture:
    """A lens that darkens towards the corners, blue more than red: gain 1 - a r^p of each channel, a 0.35 to 0.75."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x0, y0 = (0.5 + random.uniform(-0.08, 0.08, 2)) * (width, height)
    radius = np.hypot(columns - x0, rows - y0) / np.hypot(width / 2, height / 2)
    power, strength = random.uniform(1.8, 3.0), random.uniform(0.35, 0.6)
    tint = (0.85, 1.0, 1.25)
    return picture * np.stack([1 - strength * t * np.minimum(radius, 1.1) ** power for t in tint], -1)


def camera_noise(picture: Picture, random: np.random.Generator) -> Picture:
    """A sensor at high gain: picture to raw and back (after Brooks et al., "Unprocessing images", CVPR 2019).

    sRGB to linear light; white balance taken back; a Bayer mosaic (RGGB); Poisson-Gaussian noise, noise of whole rows,
    12 bits; edge-aware demosaicing (OpenCV); white balance, sRGB again, JPEG of quality 92. Shot noise log-uniform from
    0.001 to 0.01, as in that paper; read noise from it.
    """
    linear = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    gains = np.array([random.uniform(1.9, 2.4), 1.0, random.uniform(1.5, 1.9)])
    linear = linear / gains
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    mosaic = linear[:height, :width, 1].copy()
    mosaic[0::2, 0::2] = linear[0:height:2, 0:width:2, 0]
    mosaic[1::2, 1::2] = linear[1:height:2, 1:width:2, 2]
    shot = np.exp(random.uniform(np.log(0.001), np.log(0.01)))
    read = np.exp(2.18 * np.log(shot) + 1.2)
    noisy = mosaic + random.normal(size=mosaic.shape) * np.sqrt(shot * mosaic + read)
    noisy += random.normal(size=(height, 1)) * np.sqrt(read) * 0.5
    raw = np.clip(noisy * 3840 + 256, 0, 4095).round().astype(np.uint16)
    colours = cv2.cvtColor(raw, cv2.COLOR_BayerRGGB2RGB_EA).astype(np.float32)
    colours = np.clip((colours - 256) / 3840 * gains, 0, 1)
    display = np.where(colours <= 0.0031308, colours * 12.92, 1.055 * colours ** (1 / 2.4) - 0.055)
    out = picture.copy()
    out[:height, :width] = display
    coded = cv2.imencode(".jpg", (out[..., ::-1] * 255).round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1] / 255


DAMAGES: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "salt-and-pepper": salt_and_pepper,
    "raindrops": raindrops,
    "moire": moire,
    "blur-half": blurred_half,
    "vignette": vignette,
    "camera-noise": camera_noise,
}
"""All of them, by name."""


def damage(picture: torch.Tensor, name: str, seed: int) -> torch.Tensor:
    """Damage a picture, as an 8-bit file would hold it.

    Args:
        picture: uint8 (3, H, W).
        name: Of :data:`DAMAGES`.
        seed: Of everything random.

    Returns:
        uint8 (3, H, W).
    """
    random = np.random.default_rng([seed, list(DAMAGES).index(name)])
    values = picture.permute(1, 2, 0).numpy().astype(np.float32) / 255
    out = np.clip(DAMAGES[name](values, random), 0, 1)
    return torch.from_numpy((out * 255).round().astype(np.uint8)).permute(2, 0, 1).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    picture = (read(options.picture).rgb * 255).round().to(torch.uint8)
    for name in DAMAGES:
        damaged = damage(picture, name, options.seed)
        write(from_tensor(damaged.float() / 255), options.folder / f"{name}.png", overwrite=True)


if __name__ == "__main__":
    main()
