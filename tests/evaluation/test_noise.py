import cv2
import numpy as np
import pytest
import torch

from moir.base.errors import UnknownNameError
from moir.evaluation.noise import NoiseSource, add_noise, jpeg, seed_of


def test_per_image_noise_depends_on_its_parts_alone():
    shape = (6, 5, 3)
    first = NoiseSource(seed=4).draw(shape, "b", "i", 25)
    source = NoiseSource(seed=4)
    source.draw(shape, "other", "i", 25)  # order does not matter
    assert np.array_equal(first, source.draw(shape, "b", "i", 25))
    for other in (("c", "i", 25), ("b", "j", 25), ("b", "i", 50)):
        assert not np.array_equal(first, source.draw(shape, *other))
    assert not np.array_equal(first, NoiseSource(seed=5).draw(shape, "b", "i", 25))
    # Frozen: these are the numbers of every later version.
    assert first[0, 0].tolist() == pytest.approx(FROZEN, abs=1e-12)


def test_the_published_stream_runs_on():
    np.random.seed(0)
    expected = [np.random.randn(4, 5, 3), np.random.randn(6, 3, 3)]
    source = NoiseSource("published")
    assert np.array_equal(source.draw((4, 5, 3), "b", "i", 15), expected[0])
    assert np.array_equal(source.draw((6, 3, 3), "b", "i", 15), expected[1])
    with pytest.raises(UnknownNameError, match="published"):
        NoiseSource("publishd")


def test_noise_is_truncated_or_kept(photograph):
    clean = photograph[:, :20, :30]
    numbers = NoiseSource().draw((20, 30, 3), "b", "i", 25)
    pixels = (clean.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    published = np.clip(pixels + numbers * 25, 0, 255).astype(np.uint8)
    noisy = add_noise(clean, 25, numbers)
    assert torch.equal(noisy, torch.from_numpy(published.transpose(2, 0, 1).copy()).float() / 255)
    kept = add_noise(clean, 25, numbers, truncate=False)
    difference = (kept - noisy) * 255
    assert difference.min() >= -1e-4
    assert 0.4 < difference.mean() < 0.6  # truncation costs half a level
    assert kept.min() >= 0
    assert kept.max() <= 1


@pytest.mark.parametrize("swapped", [False, True])
def test_jpeg_is_that_of_opencv(photograph, swapped):
    """The published programs compress with OpenCV, or Pillow; AdaptIR's hands RGB to OpenCV, which takes BGR."""
    clean = photograph[:, :50, :60]
    pixels = np.ascontiguousarray((clean.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    handed = pixels if swapped else np.ascontiguousarray(pixels[..., ::-1])
    _, data = cv2.imencode(".jpg", handed, [cv2.IMWRITE_JPEG_QUALITY, 30])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    expected = decoded if swapped else decoded[..., ::-1]
    found = (jpeg(clean, 30, swapped=swapped).permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(found - expected).max() <= 2  # two builds of libjpeg may round differently
    other = (jpeg(clean, 30, swapped=not swapped).permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(other - expected).max() > 2


def test_seeds():
    assert seed_of("a", 1) == seed_of("a", 1) != seed_of("a1")
    assert 0 <= seed_of("x") < 2**63


FROZEN = [-0.31463417864852977, -0.5176936431832059, 1.7392039177515553]
