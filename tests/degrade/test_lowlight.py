from collections.abc import Callable

import pytest
import torch

from moir.base.errors import TensorShapeError
from moir.degrade import apply, degradation
from moir.degrade.lowlight import LowLight, LowLightParams, illumination_map

Photo = Callable[..., torch.Tensor]


@pytest.mark.parametrize("gamma", [1.5, 2.4, 4.0])
def test_closed_form_over_a_given_illumination(gamma: float, photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee")])
    light = torch.maximum(x.max(1).values, torch.rand(2, 72, 88, generator=torch.Generator().manual_seed(0)))
    light = light.clamp_min(0.01)
    y = apply(x, [[LowLightParams("paper", 0, gamma, 0.05)]] * 2, illumination=light)
    expected = x / light[:, None] * light[:, None] ** gamma
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gamma", [1.5, 3.0])
def test_closed_form_over_its_own_illumination(gamma: float, photo: Photo) -> None:
    light = illumination_map(photo()[0], 0.05)
    y = apply(photo(), [[LowLightParams("paper", 0, gamma, 0.05)]])
    torch.testing.assert_close(y[0], photo()[0] / light * light**gamma, rtol=0, atol=1e-6)


def test_gamma_one_changes_nothing(photo: Photo) -> None:
    torch.testing.assert_close(apply(photo(), [[LowLightParams("paper", 0, 1.0, 0.05)]]), photo())
    # The camera loses no light either; what remains is its noise.
    camera = LowLightParams("camera", 0, 1.0, 0.05, exposure=0.0, noise=0.0)
    torch.testing.assert_close(apply(photo(), [[camera]]), photo(), rtol=0, atol=1e-5)


def test_the_paper_only_darkens_and_keeps_hue(photo: Photo) -> None:
    y = apply(photo(), [[LowLightParams("paper", 0, 2.5, 0.05)]])
    assert (y <= photo() + 1e-6).all()
    assert y.mean() < 0.7 * photo().mean()
    bright = photo().min(1, keepdim=True).values > 0.05
    ratio = torch.where(bright, y / photo().clamp_min(1e-3), torch.ones_like(y))
    torch.testing.assert_close(ratio[:, 0], ratio[:, 2], rtol=1e-4, atol=1e-4)


def test_a_stop_halves_linear_light() -> None:
    x = torch.full((1, 3, 16, 16), 0.8)
    y = apply(x, [[LowLightParams("camera", 0, 1.0, 0.05, exposure=1.0, noise=0.0)]])
    torch.testing.assert_close(y**2.2, x**2.2 / 2, rtol=1e-4, atol=0)


def test_the_camera_adds_noise() -> None:
    x = torch.full((1, 3, 96, 96), 0.8)
    quiet, noisy = (
        apply(x, [[LowLightParams("camera", 0, 2.0, 0.05, exposure=1.0, noise=noise)]]).std() * 255
        for noise in (0.0, 5.0)
    )
    assert quiet < 0.01
    assert 1 < noisy < 10


@pytest.mark.parametrize("smooth", [0.0, 0.01, 0.08])
@pytest.mark.parametrize("size", [(72, 88), (1, 1), (1, 50), (3, 5)])
def test_illumination_map(smooth: float, size: tuple[int, int], photo: Photo) -> None:
    x = photo(height=size[0], width=size[1])[0]
    light = illumination_map(x, smooth)
    assert light.shape == size
    assert (light >= x.max(0).values - 1e-6).all(), "or the reflectance would exceed 1"
    assert light.min() >= 1e-4
    assert light.max() <= 1


def test_the_map_follows_large_changes_and_not_small_ones() -> None:
    x = torch.full((3, 128, 128), 0.2)
    x[:, :, 64:] = 0.8
    x[:, ::2] *= 0.5  # fine stripes belong to the reflectance
    light = illumination_map(x, 0.05)
    assert light[:, 100:].mean() > 2.5 * light[:, :28].mean()
    assert light[:, 100:].std() < 0.6 * x[0, :, 100:].std()


def test_the_map_looks_the_same_at_any_size(photo: Photo) -> None:
    x = photo(height=64, width=64)
    large = torch.nn.functional.interpolate(x, scale_factor=4, mode="nearest")
    again = torch.nn.functional.avg_pool2d(illumination_map(large[0], 0.08)[None, None], 4)[0, 0]
    assert (again - illumination_map(x[0], 0.08)).abs().mean() < 0.02


def test_wrong_illumination(photo: Photo) -> None:
    p = degradation("lowlight").sample("heavy", torch.Generator().manual_seed(0))
    for bad in (torch.rand(72, 88), torch.rand(1, 3, 72, 88), torch.full((1, 72, 88), torch.nan)):
        with pytest.raises(TensorShapeError, match="illumination"):
            apply(photo(), [[p]], illumination=bad)
        with pytest.raises(TensorShapeError, match="illumination"):
            LowLight().apply(photo(), [p], bad)
