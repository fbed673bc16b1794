from collections.abc import Callable
from typing import Any

import pytest
import torch

from moir.base.errors import TensorShapeError
from moir.degrade import apply, degradation
from moir.degrade.lowlight import LowLight, LowLightParams, illumination_map
from moir.degrade.sensor import to_linear

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


def exposed(exposure: float = 2.0, **values: Any) -> LowLightParams:
    return LowLightParams("exposure", 0, 2.0, 0.05, exposure=exposure, **values)


def test_exposure_is_the_same_factor_everywhere_in_linear_light(photo: Photo) -> None:
    y = apply(photo(), [[exposed()]])
    torch.testing.assert_close(to_linear(y), to_linear(photo()) / 4, rtol=0, atol=1e-5)
    torch.testing.assert_close(apply(photo(), [[exposed(0.0)]]), photo(), rtol=0, atol=1e-5)


def test_exposure_extras_act_as_named() -> None:
    x = torch.full((1, 3, 64, 64), 0.8)
    x[..., 32:] = 0.2
    plain = to_linear(apply(x, [[exposed()]]))
    shaded = to_linear(apply(x, [[exposed(shade=1.5)]])) / plain
    assert shaded.max() <= 1 + 1e-4
    assert shaded.min() == pytest.approx(2**-1.5, rel=0.01)
    kept = to_linear(apply(x, [[exposed(keep=1.0)]])) / plain
    assert kept[..., :16].mean() > 1.5
    assert kept[..., 48:].mean() < 1.1
    tinted = to_linear(apply(x, [[exposed(balance=(1.05, 1.0, 0.95))]])) / plain
    torch.testing.assert_close(tinted.mean((0, 2, 3)), torch.tensor([1.05, 1.0, 0.95]), rtol=1e-3, atol=0)
    noisy = apply(x, [[exposed(noise=4.0)]]) - apply(x, [[exposed()]])
    assert 0.5 < noisy.std() * 255 < 20


def test_exposure_loses_one_to_four_stops_or_so() -> None:
    def stops(level: str) -> float:
        drawn = [LowLight().sample(level, torch.Generator().manual_seed(s), "exposure").exposure for s in range(40)]
        return sum(drawn) / 40

    assert 0.7 < stops("light") < 2
    assert stops("light") < stops("medium") < stops("heavy") < 4.5


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
