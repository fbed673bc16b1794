import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import UnknownNameError
from moir.degrade import apply, degradation
from moir.degrade.jpeg import CHROMINANCE, LUMINANCE, SUBSAMPLINGS, JpegParams, quantisation_table

Photo = Callable[..., torch.Tensor]


def pillow(x: torch.Tensor, quality: int, subsampling: str) -> Image.Image:
    """What Pillow's encoder makes of a picture, (1, 3, H, W)."""
    pixels = (x[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file)


@pytest.mark.parametrize("quality", range(1, 101))
def test_tables_are_pillows(quality: int) -> None:
    found = pillow(torch.zeros(1, 3, 8, 8), quality, "4:2:0").quantization  # type: ignore[attr-defined]
    assert quantisation_table(quality, LUMINANCE) == list(found[0])
    assert quantisation_table(quality, CHROMINANCE) == list(found[1])


SIZES = [(160, 160), (97, 113), (120, 200), (90, 41)]
"""Sides that are, and are not, multiples of 8 and 16; even and odd."""


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [5, 10, 30, 50, 75, 90, 100])
def test_pixels_are_pillows(quality: int, subsampling: str, photo: Photo) -> None:
    """What is left: libjpeg's integer transform rounds a coefficient here and there to the next step."""
    squared = []
    for name in ("astronaut", "coffee", "chelsea"):
        for size in SIZES:
            x = photo(name, 60, 150, *size)
            ours = apply(x, [[JpegParams("baseline", 0, float(quality), subsampling)]])[0].permute(1, 2, 0) * 255
            theirs = torch.from_numpy(np.array(pillow(x, quality, subsampling))).float()
            difference = (ours - theirs).abs()
            assert (difference < 0.5).float().mean() > 0.85, "equal values"
            assert difference.mean() < 0.25
            assert difference[-8:].mean() < 0.4, "the lower border"
            assert difference[:, -8:].mean() < 1, "the right border"
            squared.append(difference.square().mean().item())
    assert 10 * math.log10(255**2 / np.mean(squared)) > 48


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_flat_pictures_are_pillows_to_the_bit(subsampling: str) -> None:
    """Means are where halves are common; they must go the same way."""
    for quality in (10, 30, 50, 77):
        for value in range(0, 256, 5):
            x = torch.full((1, 3, 16, 16), value / 255)
            ours = apply(x, [[JpegParams("baseline", 0, float(quality), subsampling)]])[0].permute(1, 2, 0) * 255
            theirs = np.asarray(pillow(x, quality, subsampling))
            assert np.array_equal(ours.round().numpy(), theirs), (quality, value)


def test_output_is_eight_bit(photo: Photo) -> None:
    y = apply(photo() * 0.999, [[JpegParams("baseline", 0, 40.0)]]) * 255
    torch.testing.assert_close(y, y.round(), rtol=0, atol=1e-4)


def test_a_batch_of_mixed_subsamplings(photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee"), photo("chelsea")])
    params = [JpegParams("baseline", 0, q, s) for q, s in ((10.0, "4:4:4"), (20.0, "4:2:0"), (90.0, "4:4:4"))]
    together = apply(x, [[p] for p in params])
    assert torch.equal(together, torch.cat([apply(x[i : i + 1], [[p]]) for i, p in enumerate(params)]))


def test_halved_chroma_loses_colour_not_light() -> None:
    x = torch.zeros(1, 3, 32, 32)
    x[:, 0, :, ::2], x[:, 2, :, 1::2] = 1, 1  # red and blue columns
    full, half = (apply(x, [[JpegParams("baseline", 0, 100.0, s)]]) for s in ("4:4:4", "4:2:0"))
    assert (full - x).abs().mean() < 0.02
    assert (half - x).abs().mean() > 0.2
    luma = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    assert ((half * luma).sum(1) - (x * luma).sum(1)).abs().mean() < 0.1


def test_drawn_quality_is_whole_and_both_subsamplings_occur() -> None:
    g = torch.Generator().manual_seed(0)
    drawn = [degradation("jpeg").sample("inside", g) for _ in range(200)]
    assert all(isinstance(p, JpegParams) and p.quality == math.floor(p.quality) for p in drawn)
    share = sum(p.subsampling == "4:2:0" for p in drawn if isinstance(p, JpegParams)) / 200
    assert share == pytest.approx(SUBSAMPLINGS["4:2:0"], abs=0.1)


def test_wrong_subsampling() -> None:
    with pytest.raises(UnknownNameError, match="4:2:0"):
        JpegParams("baseline", 0, 50.0, "4:2:2")
