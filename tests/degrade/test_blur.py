import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage  # type: ignore[import-untyped]
from skimage.filters import gaussian

from moir.degrade import apply, degradation
from moir.degrade.blur import BlurParams, kernel_of
from moir.degrade.fields import convolve

CPU = torch.device("cpu")
Photo = Callable[..., torch.Tensor]


def covariance(kernel: torch.Tensor) -> tuple[float, float, float]:
    """Variance in x, in y, and covariance of a kernel, pixels squared."""
    radius = kernel.shape[-1] // 2
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    k = kernel.double()
    x, y = x - (k * x).sum(), y - (k * y).sum()
    return (k * x * x).sum().item(), (k * y * y).sum().item(), (k * x * y).sum().item()


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(BlurParams.kinds), sigma=st.floats(0.1, 8), seed=st.integers(0, 2**31 - 1))
def test_kernels_are_averages(kind: str, sigma: float, seed: int) -> None:
    p = degradation("blur").sample(sigma, torch.Generator().manual_seed(seed), kind)
    assert isinstance(p, BlurParams)
    kernel = kernel_of(p, CPU)
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.5])
def test_gaussian_deviation(sigma: float) -> None:
    xx, yy, xy = covariance(kernel_of(BlurParams("gaussian", 0, sigma), CPU))
    assert math.sqrt(xx) == pytest.approx(sigma, rel=0.03)
    assert math.sqrt(yy) == pytest.approx(sigma, rel=0.03)
    assert abs(xy) < 1e-6


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0])
def test_anisotropic_axes(angle: float) -> None:
    xx, yy, xy = covariance(kernel_of(BlurParams("anisotropic", 0, 3.0, ratio=0.4, angle=angle), CPU))
    values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
    assert values**0.5 == pytest.approx([1.2, 3.0], rel=0.04)
    long = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])) % 180
    assert min(abs(long - angle), 180 - abs(long - angle)) < 1


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_disc(sigma: float) -> None:
    kernel = kernel_of(BlurParams("defocus", 0, sigma), CPU)
    radius = kernel.shape[0] // 2
    assert kernel[radius, radius] == pytest.approx(1 / (math.pi * (2 * sigma) ** 2), rel=0.08)  # flat
    assert kernel[radius, radius + round(2 * sigma) + 1] == 0  # and nothing beyond the radius
    assert math.sqrt(covariance(kernel)[0]) == pytest.approx(sigma, abs=0.09)


@pytest.mark.parametrize("angle", [0.0, 40.0, 90.0, 150.0])
def test_motion_is_a_line(angle: float) -> None:
    """Angle 0 is vertical; positive angles lean to the right at the top."""
    xx, yy, xy = covariance(kernel_of(BlurParams("motion", 0, 4.0, angle=angle), CPU))
    values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
    assert math.sqrt(12 * values[1]) == pytest.approx(20, rel=0.05)  # a line of length L has variance L^2 / 12
    assert math.sqrt(values[0]) < 0.6
    x, y = vectors[:, 1]
    tilt = math.degrees(math.atan2(x, -y)) % 180
    assert min(abs(tilt - angle), 180 - abs(tilt - angle)) < 1


def test_curved_path() -> None:
    """As long as the straight one or shorter from end to end, and bent the more the larger the bend."""

    def across(bend: float) -> float:
        narrow = []
        for seed in range(12):
            xx, yy, xy = covariance(kernel_of(BlurParams("curved", seed, 4.0, bend=bend), CPU))
            values = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
            assert math.sqrt(values[1]) < 1.25 * 20 / math.sqrt(12)
            narrow.append(values[0])
        return float(np.mean(narrow))

    assert across(0.0) < 0.5
    assert across(30.0) < 0.7 * across(80.0)


@pytest.mark.parametrize("kind", BlurParams.kinds)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_picture_stays(kind: str, value: float) -> None:
    x = torch.full((1, 3, 31, 44), value)
    p = degradation("blur").sample("outside", torch.Generator().manual_seed(0), kind)
    torch.testing.assert_close(apply(x, [[p]]), x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_gaussian_is_that_of_scipy_and_scikit_image(sigma: float, photo: Photo) -> None:
    x = photo()
    ours = apply(x, [[BlurParams("gaussian", 0, sigma)]])[0].numpy()
    planes = x[0].numpy()
    # "mirror" is ours: the border pixel is not repeated.
    scipy = np.stack([ndimage.gaussian_filter(p, sigma, mode="mirror", radius=math.ceil(3 * sigma)) for p in planes])
    assert np.abs(ours - scipy).max() < 1e-5
    scikit = gaussian(planes, sigma, mode="mirror", truncate=4, channel_axis=0)
    assert np.abs(ours - scikit).max() < 0.01  # it cuts the kernel off further out


@pytest.mark.parametrize("kind", ["motion", "curved", "defocus", "anisotropic"])
@pytest.mark.parametrize("size", [(72, 88), (5, 40), (1, 9)])
def test_other_kernels_are_convolved_as_by_scipy(kind: str, size: tuple[int, int], photo: Photo) -> None:
    x = photo(height=size[0], width=size[1])
    p = degradation("blur").sample(2.5, torch.Generator().manual_seed(3), kind)
    assert isinstance(p, BlurParams)
    kernel = kernel_of(p, CPU).numpy()
    expected = np.stack([ndimage.convolve(plane, kernel, mode="mirror") for plane in x[0].numpy()])
    assert np.abs(apply(x, [[p]])[0].numpy() - expected).max() < 1e-5


def test_convolve_without_mirror(photo: Photo) -> None:
    x = photo(height=23, width=31)
    kernel = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    ours = convolve(x, kernel[None], reflect=False)[0].numpy()
    expected = np.stack([ndimage.convolve(plane, kernel.numpy(), mode="constant") for plane in x[0].numpy()])
    assert np.abs(ours - expected).max() < 1e-4


def test_the_smallest_blur_is_none(photo: Photo) -> None:
    torch.testing.assert_close(apply(photo(), [[BlurParams("gaussian", 0, 0.1)]]), photo(), rtol=0, atol=1e-5)
