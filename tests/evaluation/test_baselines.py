import importlib.util
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moir import degrade
from moir.base.errors import MissingExtraError, TensorShapeError, UnknownNameError
from moir.evaluation.baselines import baseline, list_baselines
from moir.evaluation.baselines.deblocking import estimate_quality
from moir.evaluation.baselines.deblurring import KERNEL_SIGMA
from moir.evaluation.baselines.dehazing import atmospheric_light, darkest, guided_filter
from moir.evaluation.baselines.noise_level import noise_level
from moir.evaluation.methods import Method
from moir.evaluation.noise import add_noise, jpeg
from moir.metrics import psnr

NEEDS = {"wavelet": "pywt", "bm3d": "bm3d"}
HERE = [name for name in list_baselines() if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]


def noisy(picture, sigma):
    return add_noise(picture, sigma, np.random.RandomState(0).randn(*picture.shape[1:], 3))


def blurred(picture, sigma):
    pixels = picture.permute(1, 2, 0).numpy()
    return torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), sigma)).permute(2, 0, 1).contiguous()


def hazy(picture):
    return degrade.apply(picture[None], [degrade.parse("haze=medium").sample(torch.Generator().manual_seed(0))])[0]


def salted(picture):
    spots = torch.rand(picture.shape[-2:], generator=torch.Generator().manual_seed(0)) < 0.03
    return torch.where(spots, torch.ones(()), picture)


def gain(name, damaged, clean):
    restored = baseline(name).restore(damaged)
    before, after = (psnr(x[None], clean[None]).item() for x in (damaged, restored))
    return after - before


# Half of what each gained when this was written, so that only a defect fails.
@pytest.mark.parametrize(
    ("name", "damage", "least"),
    [
        ("nlm", lambda x: noisy(x, 25), 4.0),
        ("tv", lambda x: noisy(x, 25), 3.0),
        ("wavelet", lambda x: noisy(x, 25), 2.5),
        ("bm3d", lambda x: noisy(x, 25), 4.0),
        ("median", salted, 3.0),
        ("dark_channel", hazy, 1.5),
        ("gamma", lambda x: x**2.5, 3.0),
        ("clahe", lambda x: x**2.5, 0.5),
        ("wiener", lambda x: blurred(x, KERNEL_SIGMA), 1.0),
        ("richardson_lucy", lambda x: blurred(x, KERNEL_SIGMA), 1.0),
        ("deblock", lambda x: jpeg(x, 20), 0.2),
    ],
)
def test_each_does_what_it_is_for(name, damage, least, photograph):
    if name not in HERE:
        pytest.skip(f"{NEEDS[name]} is not installed")
    assert gain(name, damage(photograph), photograph) > least


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (64, 49)])
def test_shape_range_and_determinism(name, size, photograph):
    method = baseline(name)
    assert isinstance(method, Method)
    assert method.name == name
    x = noisy(photograph[:, 50 : 50 + size[0], 80 : 80 + size[1]], 30)
    kept = x.clone()
    first, second = method.restore(x, setting=None), method.restore(x)
    assert first.shape == x.shape
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, second)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures_stay_finite(name, value):
    restored = baseline(name).restore(torch.full((3, 32, 32), value))
    assert torch.isfinite(restored).all()
    assert restored.std() < 1e-3


def test_identity_is_exact(photograph):
    assert torch.equal(baseline("identity").restore(photograph), photograph)


@pytest.mark.parametrize("name", ["nlm", "tv"])
def test_without_noise_denoisers_change_nothing(name):
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64).contiguous()
    assert torch.equal(baseline(name).restore(ramp), ramp)


def test_what_was_no_jpeg_is_left_alone(photograph):
    assert torch.equal(baseline("deblock").restore(photograph), photograph)


def test_bright_pictures_are_not_darkened():
    bright = torch.rand(3, 16, 16) * 0.3 + 0.7
    assert torch.equal(baseline("gamma").restore(bright), bright)


def test_gamma_brings_the_mean_to_the_middle():
    grey = torch.full((3, 16, 16), 0.1)
    assert baseline("gamma").restore(grey).mean().item() == pytest.approx(0.5, abs=1e-3)


@given(sigma=st.floats(5, 60), seed=st.integers(0, 1000))
def test_noise_level_of_white_noise(sigma, seed):
    noise = np.random.RandomState(seed).randn(96, 96, 3) * sigma / 255
    assert noise_level((0.5 + noise).astype(np.float32)) * 255 == pytest.approx(sigma, rel=0.1)


def test_noise_level_is_scikit_images(photograph):
    pytest.importorskip("pywt")
    from skimage.restoration import estimate_sigma

    pixels = noisy(photograph, 25).permute(1, 2, 0).numpy()
    expected = estimate_sigma(pixels, channel_axis=-1, average_sigmas=True)
    assert noise_level(pixels) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("quality", [10, 23, 50, 80])
def test_jpeg_quality_is_found(quality, photograph):
    levels = (jpeg(photograph, quality).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert estimate_quality(levels) == pytest.approx(quality, abs=1)


def test_no_jpeg_no_quality(photograph):
    fresh = noisy(photograph, 5).permute(1, 2, 0).numpy()
    assert estimate_quality((fresh * 255).round().astype(np.uint8)) is None


def test_dark_channel_on_a_made_scene():
    # Uniform haze t over a scene with a black pixel in every patch: the light is A, and t comes out as it was.
    generator = np.random.RandomState(0)
    scene = generator.rand(60, 60, 3).astype(np.float32)
    scene[::5, ::5] = 0
    light, t = np.array([0.9, 0.85, 0.8], np.float32), 0.4
    haze = scene * t + light * (1 - t)
    haze[:8, :8] = light  # open sky
    np.testing.assert_allclose(darkest(haze)[30:, 30:], (light * (1 - t)).min(), atol=1e-6)
    assert np.abs(atmospheric_light(haze) - light).max() < 0.06
    transmission = 1 - darkest(haze / light)
    np.testing.assert_allclose(transmission[30:, 30:], t, atol=1e-5)


def test_guided_filter_keeps_lines_of_its_guide():
    # Where x is a line of the guide, a small epsilon gives x back (He et al., section 3.2).
    guide = np.random.RandomState(0).rand(40, 50).astype(np.float32)
    x = 0.3 * guide + 0.2
    np.testing.assert_allclose(guided_filter(guide, x, 5, 1e-9), x, atol=1e-5)
    # With a large one it is a mean of means.
    flat = guided_filter(guide, x, 5, 1e6)
    assert flat.std() < 0.2 * x.std()


def test_richardson_lucy_is_scikit_images(photograph):
    from skimage.restoration import richardson_lucy

    y = blurred(photograph, KERNEL_SIGMA)[:, :80, :80].contiguous()
    kernel = cv2.getGaussianKernel(11, KERNEL_SIGMA, cv2.CV_64F)
    pixels = y[0].double().numpy()
    expected = richardson_lucy(pixels, kernel @ kernel.T, num_iter=10, clip=False)
    # scikit-image starts from 0.5 and pads with zeros, so the two agree only inside, and only nearly.
    ours = baseline("richardson_lucy").restore(y)[0].double().numpy()
    inside = slice(25, -25)
    apart, changed = (np.abs(a - expected)[inside, inside].mean() for a in (ours, pixels))
    assert apart < 0.5 * changed


def test_missing_packages_are_named(monkeypatch):
    for name, module in NEEDS.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match="pip install"):
            baseline(name).restore(torch.rand(3, 16, 16))


def test_bm3d_says_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(MissingExtraError, match="non-commercial"):
        baseline("bm3d").restore(torch.rand(3, 16, 16))


def test_wrong_name_and_wrong_input():
    with pytest.raises(UnknownNameError, match="dark_channel"):
        baseline("dark_chanel")
    with pytest.raises(TensorShapeError, match="float32"):
        baseline("median").restore(torch.rand(1, 3, 8, 8))


def test_every_baseline_says_what_it_is():
    for name in list_baselines():
        method = baseline(name)
        assert method.name == name
        assert method.source
        assert "\n" not in method.description
        assert set(method.types) <= set(degrade.ORDER)
        assert bool(method.types) == (name != "identity")


def test_cost_has_time_and_no_parameters():
    cost = baseline("median").cost((64, 48))
    assert cost.size == (64, 48)
    assert cost.seconds > 0
    assert cost.parameters is None
    assert cost.macs is None
