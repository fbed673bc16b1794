"""The damage that benchmarks define themselves: Gaussian noise drawn per picture or as published, and JPEG."""

import hashlib
import io
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from moir.base.names import check_name

Drawing = Literal["per-image", "published"]
"""How noise is drawn; see :class:`NoiseSource`."""


def seed_of(*parts: object) -> int:
    """A seed that depends on nothing but its parts: their text, joined by line ends, through SHA-256; 63 bits.

    Examples:
        >>> seed_of("cbsd68_s25", "101085", 25, 0)
        6126569788924868834
    """
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class NoiseSource:
    """Standard normal numbers for the noise of benchmarks.

    ``per-image``: the numbers depend on (benchmark, picture's name, sigma, seed) alone, so that neither order nor
    omissions change a picture. ``published``: as the papers' programs do it, one stream for the whole run, seeded once,
    so that the noise of a picture depends on all pictures before it, and on the order of the benchmarks.

    NumPy's ``RandomState`` is used for both: its stream is frozen for good, newer generators may change.

    Args:
        drawing: Which of the two.
        seed: The published programs take 0.

    Raises:
        UnknownNameError: No such drawing.
    """

    def __init__(self, drawing: Drawing = "per-image", seed: int = 0) -> None:
        check_name(drawing, get_args(Drawing), "way to draw noise")
        self.drawing, self.seed = drawing, seed
        self._stream = np.random.RandomState(seed)

    def draw(self, shape: tuple[int, int, int], benchmark: str, image: str, sigma: float) -> Any:
        """Draw (H, W, C) float64, in the order in which the published programs fill their pictures.

        Args:
            shape: H, W, C.
            benchmark, image, sigma: What the numbers depend on, ``per-image``.
        """
        if self.drawing == "published":
            return self._stream.randn(*shape)
        seed = seed_of(benchmark, image, f"{sigma:g}", self.seed)
        return np.random.RandomState([seed >> 32, seed & 0xFFFFFFFF]).randn(*shape)


def add_noise(clean: torch.Tensor, sigma: float, numbers: Any, *, truncate: bool = True) -> torch.Tensor:
    """Gaussian noise as the papers' test programs add it: ``clip(x + sigma n, 0, 255)`` on the 8-bit scale.

    Args:
        clean: (3, H, W), [0, 1], of 8-bit values.
        sigma: Standard deviation in 8-bit levels.
        numbers: (H, W, 3), standard normal, float64.
        truncate: Cut off the fraction, as casting to uint8 does (AirNet and its followers); otherwise keep it
            (AdaptIR).
    """
    levels = (clean.permute(1, 2, 0).numpy().astype(np.float64) * 255).round()
    noisy = np.clip(levels + sigma * numbers, 0, 255)
    if truncate:
        noisy = noisy.astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(noisy.transpose(2, 0, 1))).float() / 255


def jpeg(clean: torch.Tensor, quality: int, *, swapped: bool = False) -> torch.Tensor:
    """Baseline JPEG by Pillow's libjpeg, chroma halved (4:2:0), decoded again.

    Args:
        clean: (3, H, W), [0, 1]; rounded to 8 bit.
        quality: libjpeg quality, 1..100.
        swapped: Red and blue change places before and after, as in AdaptIR's program, which hands RGB to OpenCV.

    Returns:
        (3, H, W), multiples of 1/255.
    """
    pixels = (clean.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    pixels = np.ascontiguousarray(pixels[..., ::-1] if swapped else pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as image:
        decoded = np.array(image)
    decoded = np.ascontiguousarray((decoded[..., ::-1] if swapped else decoded).transpose(2, 0, 1))
    return torch.from_numpy(decoded).float() / 255
