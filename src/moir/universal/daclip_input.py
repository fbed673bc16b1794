"""What DA-CLIP is shown of a picture: its middle square, 224 pixels wide, in CLIP's normalisation.

This is the published way, resizing included, which takes away much of the noise and of the JPEG blocks. Weights that
were trained so must be used so.
"""

import math

import numpy as np
import torch
from PIL import Image

from moir.networks.base import check_pictures
from moir.universal.daclip import SIDE

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

LONGEST = 64
"""A picture that is more than this many times longer than wide is cut to that before it is resized. The square shows
the same part of it; without the cut, a strip of 1 x 100,000 pixels would be blown up to 224 x 22,400,000."""


def preprocess(picture: Image.Image, side: int = SIDE) -> torch.Tensor:
    """Resize the shorter side to ``side`` (bicubic, antialiased), cut out the middle, convert to RGB, normalise.

    Args:
        picture: Any mode. As published, the conversion to RGB comes after resizing (palettes are then not averaged).
        side: Side of the result, pixels.

    Returns:
        (3, side, side), float32, about -1.8 to 2.2.
    """
    width, height = picture.size
    shorter, longer = sorted((width, height))
    if longer > LONGEST * shorter:
        excess = (longer - LONGEST * shorter) // 2
        left, top = (excess, 0) if width > height else (0, excess)
        picture = picture.crop((left, top, width - left, height - top))
        shorter, longer = sorted(picture.size)
    new = int(side * longer / shorter)  # rounded down, as published
    size = (side, new) if picture.width <= picture.height else (new, side)
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return _normalised(resized.crop((left, top, left + side, top + side)))


def random_square(width: int, height: int, generator: torch.Generator, side: int = SIDE) -> tuple[int, int, int]:
    """A random square of a picture, as the extractor was trained: its side uniform from ``side`` to the shorter one.

    Args:
        width, height: Of the picture, pixels; where it is smaller than ``side``, its shorter side is taken.
        generator: Source of randomness.
        side: The smallest square.

    Returns:
        Left, top, and the square's side.
    """
    shorter = min(width, height)
    length = _integer(generator, min(side, shorter), shorter)
    return _integer(generator, 0, width - length), _integer(generator, 0, height - length), length


def preprocess_training(square: Image.Image, generator: torch.Generator, side: int = SIDE) -> torch.Tensor:
    """A random part of a square, resized: 90 to 100% of its area, ratio of its sides 3/4 to 4/3, as published.

    Args:
        square: Damaged already.
        generator: Source of randomness.
        side: Side of the result, pixels.

    Returns:
        (3, side, side), float32, normalised.
    """
    width, height = square.size
    for _ in range(10):
        area = width * height * _uniform(generator, 0.9, 1.0)
        ratio = math.exp(_uniform(generator, math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = _integer(generator, 0, width - across), _integer(generator, 0, height - down)
            square = square.crop((left, top, left + across, top + down))
            break
    return _normalised(square.resize((side, side), Image.Resampling.BICUBIC))


def preprocess_batch(x: torch.Tensor, side: int = SIDE) -> torch.Tensor:
    """The same for tensors, through 8 bits per channel: what the published code sees of the saved picture.

    Args:
        x: (B, 3, H, W), float, [0, 1], any H, W >= 1, any device.
        side: Side of the result, pixels.

    Returns:
        (B, 3, side, side), float32, on the device of ``x``; without gradient.

    Raises:
        TensorShapeError: ``x`` is not a batch of colour pictures.
    """
    check_pictures(x)
    eight_bit = x.detach().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    pictures = [preprocess(Image.fromarray(np.ascontiguousarray(pixels)), side) for pixels in eight_bit]
    return torch.stack(pictures).to(x.device)


def _normalised(square: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(square.convert("RGB"))).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator).item())


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()
