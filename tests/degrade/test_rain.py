import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import ndimage  # type: ignore[import-untyped]

from moir.degrade import apply, degradation
from moir.degrade.fields import convolve, gaussian_kernel
from moir.degrade.rain import RainParams, layered_streaks, mioir_streaks, natural_streaks

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


@pytest.mark.parametrize("kind", ["mioir", "streaks", "dense"])
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


# -- rain as photographs have it --


def natural(seed: int = 0, level: str | float = "heavy") -> RainParams:
    p = degradation("rain").sample(level, generator(seed), "natural")
    assert isinstance(p, RainParams)
    return p


@pytest.mark.parametrize("angle", [-30.0, 0.0, 15.0])
def test_natural_streaks_have_the_angle_asked_for(angle: float) -> None:
    p = replace(natural(), angle=angle, length=30.0, width=2.0, layers=2, spread=0.0, bead=0.0, soft=0.0)
    assert streak_angle(natural_streaks(160, 160, p, generator())) == pytest.approx(angle, abs=3)


def test_natural_rain_mixes_with_the_light_of_the_drops() -> None:
    """It brightens the dark, darkens what is brighter than the drops, and leaves what is as bright as they are."""
    p = replace(natural(1), veil=0.0, drop_light=0.7, light=(1.0, 1.0, 1.0))
    change = [apply(torch.full((1, 3, 64, 64), v), [[p]]) - v for v in (0.1, 0.7, 0.9)]
    assert change[0].min() >= 0
    assert change[0].max() > 0.1
    assert change[1].abs().max() < 1e-6
    assert change[2].max() <= 1e-6
    torch.testing.assert_close(change[0] / 0.6, change[2] / -0.2, rtol=0, atol=1e-5)


def test_natural_rain_has_the_colour_of_its_light() -> None:
    p = replace(natural(2), light=(1.06, 1.0, 0.94))
    y = apply(torch.zeros(1, 3, 64, 64), [[p]])[0]
    torch.testing.assert_close(y[0] * 0.94, y[2] * 1.06, rtol=1e-4, atol=1e-5)


def test_a_soft_layer_is_smoother_and_fainter() -> None:
    def layer(soft: float) -> torch.Tensor:
        return natural_streaks(160, 160, replace(natural(3), layers=1, bead=0.0, width=2.0, soft=soft), generator())

    assert layer(1.0).max() < 0.7 * layer(0.0).max()
    rough = [(m.diff(dim=1).square().mean() / m.square().mean()).item() for m in (layer(0.0), layer(1.0))]
    assert rough[1] < 0.5 * rough[0]


def test_light_mioir_rain_is_fainter_and_its_streaks_are_narrow() -> None:
    light, heavy = (
        [degradation("rain").sample(level, generator(s), "mioir") for s in range(20)] for level in ("light", "heavy")
    )
    assert max(p.width for p in light + heavy) <= 7  # type: ignore[attr-defined]
    mean = [sum(p.opacity for p in group) / 20 for group in (light, heavy)]  # type: ignore[attr-defined]
    assert mean[0] < 0.8 * mean[1]
    published = [degradation("rain").sample("inside", generator(s), "mioir") for s in range(30)]
    assert {p.width for p in published} == {3, 5, 7, 9, 11}  # type: ignore[attr-defined]
    assert {p.opacity for p in published} == {1.0}  # type: ignore[attr-defined]
