import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import ndimage  # type: ignore[import-untyped]

from moir.degrade import apply, degradation
from moir.degrade.fields import convolve, gaussian_kernel
from moir.degrade.rain import RainParams, layered_streaks, mioir_streaks

Photo = Callable[..., torch.Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def streak_angle(rain: torch.Tensor) -> float:
    """Tilt from the vertical (positive to the right at the top), degrees, from the structure tensor."""
    smooth = convolve(rain[None, None], gaussian_kernel(1.5, rain.device)[None], reflect=False)[0, 0]
    dy, dx = torch.gradient(smooth)
    xx, yy, xy = (dx * dx).sum(), (dy * dy).sum(), (dx * dy).sum()
    across = 0.5 * math.atan2(2 * xy, xx - yy)  # direction in which the picture changes most, from the x axis
    return math.degrees(across)


@pytest.mark.parametrize("angle", [-45.0, -20.0, 0.0, 10.0, 40.0])
def test_streaks_have_the_angle_asked_for(angle: float) -> None:
    mioir = mioir_streaks(160, 160, RainParams("mioir", 0, 60.0, angle, length=35.0, width=5.0), generator())
    assert streak_angle(mioir) == pytest.approx(angle, abs=3)
    one = RainParams("streaks", 0, 60.0, angle, length=35.0, width=3.0, layers=1)
    assert streak_angle(layered_streaks(160, 160, one, generator())) == pytest.approx(angle, abs=3)


@pytest.mark.parametrize("length", [20.0, 40.0])
def test_mioir_streak_length(length: float) -> None:
    """The recipe's diagonal of a length x length kernel, shortened by 1 - length / 100, and cut off by that kernel."""
    p = RainParams("mioir", 0, 1.0, 0.0, length, width=3.0)
    for seed in range(50):  # a layer with a single drop, away from the border
        rain = mioir_streaks(120, 120, p, generator(seed))
        rows = (rain.max(1).values > 0.5).nonzero()[:, 0]
        starts = (torch.rand(120, 120, generator=generator(seed)) * 256 >= 256 - 0.01).sum()
        if starts == 1 and rows[0] > 0 and rows[-1] < 119:
            assert len(rows) == pytest.approx(min(length * math.sqrt(2) * (1 - length / 100), length), abs=1.5)
            return
    pytest.fail("no layer with a single drop")


def test_mioir_drop_count() -> None:
    """0.01 * amount / 256 of the pixels start a streak."""
    p = RainParams("mioir", 0, 20.0, 0.0, 20.0, 3.0)
    found = sum(ndimage.label(mioir_streaks(256, 256, p, generator(seed)) > 0.2)[1] for seed in range(6))
    assert found == pytest.approx(6 * 256 * 256 * 0.2 / 256, rel=0.12)  # a few overlap


def test_wider_streaks_are_wider() -> None:
    def width(value: float) -> float:
        rain = mioir_streaks(160, 160, RainParams("mioir", 0, 60.0, 0.0, 30.0, value), generator())
        return 1 / rain.diff(dim=1).square().sum().div(rain.square().sum()).sqrt().item()

    assert width(3.0) < 0.75 * width(11.0)


@pytest.mark.parametrize("kind", RainParams.kinds)
def test_rain_without_veil_only_brightens(kind: str, photo: Photo) -> None:
    p = degradation("rain").sample("heavy", generator(), kind)
    assert isinstance(p, RainParams)
    dry = replace(p, veil=0.0)
    added = apply(photo(), [[dry]]) - photo()
    assert added.min() >= 0
    assert added.max() > 0.2
    # Grey: the same in all channels, where nothing is clipped.
    dark = apply(torch.zeros(1, 3, 64, 64), [[dry]])[0]
    assert torch.equal(dark[0], dark[1])
    assert torch.equal(dark[0], dark[2])


def test_veil_is_a_mixture_with_its_light() -> None:
    p = RainParams("streaks", 0, 1.0, 0.0, 20.0, 1.0, opacity=0.0, veil=0.5, veil_light=0.7)
    x = torch.zeros(1, 3, 64, 64)
    x[..., 32:] = 1.0
    y = apply(x, [[p]])[0, 0]
    density = 1 - (y[:, 32:] - 0.7 * 0) / 1  # y = 1 - d + 0.7 d where the picture is white
    assert (y[:, :32] >= 0.7 * 0.5 * 0.7 - 1e-5).all()
    assert (y[:, :32] <= 0.7 * 0.5 + 1e-5).all()
    assert (density >= 0.3 * 0.5 * 0.7 - 1e-5).all()
    assert (density <= 0.3 * 0.5 + 1e-5).all()


def test_more_layers_more_rain() -> None:
    def light(layers: int) -> float:
        p = RainParams("streaks", 0, 60.0, 5.0, 30.0, 2.0, opacity=0.6, layers=layers)
        return layered_streaks(128, 128, p, generator()).mean().item()

    assert light(1) < light(2) < light(4)


def test_dense_rain_covers_much_of_the_picture() -> None:
    p = degradation("rain").sample("heavy", generator(1), "dense")
    assert isinstance(p, RainParams)
    assert 0.3 < (layered_streaks(200, 200, p, generator()) > 0.05).float().mean() < 1
