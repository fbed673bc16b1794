from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from skimage.util import random_noise

from moir.degrade import apply, degradation, params_from_json
from moir.degrade.noise import NoiseParams, iso_noise
from moir.degrade.sensor import to_display, to_linear

LEVEL = 1 / 255


def grey(value: float, side: int = 192) -> torch.Tensor:
    return torch.full((1, 3, side, side), value)


@pytest.mark.parametrize("sigma", [5.0, 15.0, 25.0])
def test_gaussian_has_the_deviation_asked_for(sigma: float) -> None:
    n = apply(grey(0.5), [[NoiseParams("gaussian", 3, sigma)]]) - 0.5
    assert n.std().item() == pytest.approx(sigma * LEVEL, rel=0.01)
    assert abs(n.mean().item()) < 0.01 * sigma * LEVEL + 1e-4
    # White, and independent from channel to channel.
    red, green = n[0, 0], n[0, 1]
    variance = n.var().item()
    assert abs((red * green).mean().item()) < 0.03 * variance
    assert abs((red[:, 1:] * red[:, :-1]).mean().item()) < 0.03 * variance
    # Gaussian, not uniform or the like: kurtosis 3.
    assert (n / n.std()).pow(4).mean().item() == pytest.approx(3, abs=0.1)


def test_gaussian_is_that_of_scikit_image(photo: Callable[..., torch.Tensor]) -> None:
    x = photo(height=128, width=128)
    ours = apply(x, [[NoiseParams("gaussian", 0, 50.0)]])
    theirs = torch.from_numpy(random_noise(x.numpy(), "gaussian", rng=0, var=(50 * LEVEL) ** 2)).float()
    for statistic in (torch.mean, torch.std):
        assert statistic(ours - x).item() == pytest.approx(statistic(theirs - x).item(), abs=0.5 * LEVEL)
    for edge in (0.0, 1.0):  # as much is clipped
        assert (ours == edge).float().mean().item() == pytest.approx((theirs == edge).float().mean().item(), abs=0.01)


@pytest.mark.parametrize("sigma", [5.0, 25.0])
@pytest.mark.parametrize("value", [0.1, 0.5, 0.8])
def test_poisson_variance_is_mean_over_peak(sigma: float, value: float) -> None:
    y = apply(grey(value), [[NoiseParams("poisson", 1, sigma)]])
    peak = 0.5 / (sigma * LEVEL) ** 2
    if value + 5 * (value / peak) ** 0.5 < 1:  # nothing clipped
        assert y.mean().item() == pytest.approx(value, rel=0.01)
        assert y.var().item() == pytest.approx(value / peak, rel=0.03)
    counts = y[y < 1] * peak
    assert (counts - counts.round()).abs().max() < 1e-3, "counts are whole photons"


def test_poisson_is_that_of_scikit_image() -> None:
    x = grey(0.4)
    # skimage takes the number of distinct values, rounded up to a power of two, for the peak: here 256.
    ramp = torch.linspace(0, 1, 200)
    stack = torch.cat([x.flatten(), ramp]).numpy()
    theirs = torch.from_numpy(random_noise(stack, "poisson", rng=0))[: x.numel()]
    sigma = (0.5 / 256) ** 0.5 / LEVEL
    ours = apply(x, [[NoiseParams("poisson", 0, sigma)]])
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)


@pytest.mark.parametrize("grain", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("chroma", [0.0, 0.6, 1.0])
def test_iso_deviation_at_mid_grey(grain: float, chroma: float) -> None:
    def ratio(sigma: float) -> float:
        n = apply(grey(0.5), [[NoiseParams("iso", 2, sigma, shot=0.9, grain=grain, chroma=chroma)]]) - 0.5
        return n.std().item() / (sigma * LEVEL)

    assert ratio(3.0) == pytest.approx(1, abs=0.03)
    assert ratio(10.0) == pytest.approx(1, abs=0.05)
    assert 0.97 < ratio(25.0) < 1.25  # the curve of the display is no longer straight over so wide a noise


def test_iso_correlations() -> None:
    def correlation(grain: float, chroma: float) -> tuple[float, float]:
        n = apply(grey(0.5), [[NoiseParams("iso", 2, 10.0, 0.9, grain, chroma)]])[0] - 0.5
        n = n / n.std()
        return (n[0] * n[1]).mean().item(), (n[:, :, 1:] * n[:, :, :-1]).mean().item()

    white_colour, white_space = correlation(0, 1)
    assert abs(white_colour) < 0.02
    assert abs(white_space) < 0.02
    assert correlation(0, 0.4)[0] == pytest.approx(0.6, abs=0.03)
    assert correlation(1, 1)[1] == pytest.approx(2 / 3, abs=0.03)  # (1 4 6 4 1) / 6, one step off the centre


def test_iso_variance_is_affine_in_linear_light() -> None:
    g = torch.Generator().manual_seed(0)
    shot, sigma = 0.9, 2 * LEVEL
    levels = torch.tensor([0.35, 0.5, 0.7, 0.9])
    variances = [
        (iso_noise(torch.full((3, 160, 160), v), sigma, shot, 0, 1, g) ** 2.2).var().item() for v in levels.tolist()
    ]
    relative = torch.tensor(variances) / variances[1]
    expected = shot * levels**2.2 / 0.5**2.2 + 1 - shot
    torch.testing.assert_close(relative, expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("kind", NoiseParams.kinds)
def test_no_noise(kind: str, photo: Callable[..., torch.Tensor]) -> None:
    p = degradation("noise").sample(0.0, torch.Generator().manual_seed(0), kind)
    assert (apply(photo(), [[p]]) - photo()).abs().max() < LEVEL / 4


# -- a camera's --


@pytest.mark.parametrize("sigma", [5.0, 15.0, 30.0, 40.0, 50.0])
@pytest.mark.parametrize("kind", ["iso", "sensor"])
def test_drawn_noise_has_the_deviation_asked_for(kind: str, sigma: float) -> None:
    for seed in range(3):
        p = degradation("noise").sample(sigma, torch.Generator().manual_seed(seed), kind)
        assert isinstance(p, NoiseParams)
        p = replace(p, gains=(1.0, 1.0, 1.0))
        n = apply(grey(0.5, 256), [[p]]) - 0.5
        assert n.std().item() == pytest.approx(sigma * LEVEL, rel=0.05)


def test_old_iso_records_give_the_noise_they_gave() -> None:
    """Uncalibrated, 35 levels come out as some 42."""
    record = {"type": "noise", "kind": "iso", "seed": 2, "sigma": 35.0, "shot": 0.9, "grain": 0.0, "chroma": 1.0}
    n = apply(grey(0.5), [[params_from_json(record)]]) - 0.5
    assert 1.15 < n.std().item() / (35 * LEVEL) < 1.25


def test_sensor_noise_is_patchy_in_colour_and_stronger_in_red_and_blue() -> None:
    p = NoiseParams("sensor", 0, 8.0, shot=0.95, grain=0.0, gains=(1.8, 1.0, 1.5), blotch=1.2)
    n = (apply(grey(0.5), [[p]]) - 0.5)[0]
    deviation = n.std((1, 2))
    torch.testing.assert_close(deviation / deviation[1], torch.tensor([1.8, 1.0, 1.5]), rtol=0.05, atol=0)
    n = n / deviation[:, None, None]
    light, colour = n.mean(0), n[0] - n.mean(0)

    def neighbours(m: torch.Tensor) -> float:
        return ((m[:, 1:] * m[:, :-1]).mean() / m.square().mean()).item()

    assert abs(neighbours(light)) < 0.03
    assert neighbours(colour) > 0.6
    assert abs((n[0] * n[1]).mean().item()) < 0.05


def test_sharpening_turns_neighbours_against_each_other() -> None:
    n = apply(grey(0.5), [[NoiseParams("sensor", 0, 8.0, shot=0.9, sharpen=0.8)]])[0, 0] - 0.5
    assert (n[:, 1:] * n[:, :-1]).mean() < -0.05 * n.var()


def test_display_curve() -> None:
    x = torch.linspace(0, 1, 500)
    torch.testing.assert_close(to_display(to_linear(x)), x, rtol=0, atol=1e-5)
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-5)


def test_a_number_without_a_kind_is_the_noise_of_the_benchmarks() -> None:
    g = torch.Generator().manual_seed(0)
    assert {degradation("noise").sample(25.0, g).kind for _ in range(30)} == {"gaussian"}
