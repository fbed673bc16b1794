from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from moir.base.errors import TensorShapeError
from moir.degrade import apply, degradation
from moir.degrade.depth import DepthParams, depth_field
from moir.degrade.haze import Haze, HazeParams

Photo = Callable[..., torch.Tensor]


def draw(level: str | float = "medium", seed: int = 0, kind: str | None = None) -> HazeParams:
    p = degradation("haze").sample(level, torch.Generator().manual_seed(seed), kind)
    assert isinstance(p, HazeParams)
    return p


def test_closed_form_over_a_given_depth(photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee")])
    depth = torch.rand(2, 72, 88, generator=torch.Generator().manual_seed(0)) * 40  # metres, say
    params = [replace(draw(seed=s), light=(0.9, 0.85, 0.8), beta=0.7 + s, fade=0.0, glow=0.0) for s in (0, 1)]
    y = apply(x, [[p] for p in params], depth=depth)
    for i, p in enumerate(params):
        t = torch.exp(-p.beta * depth[i] / depth[i].max())
        light = torch.tensor(p.light)[:, None, None]
        torch.testing.assert_close(y[i], x[i] * t + light * (1 - t), rtol=0, atol=1e-6)


def test_depth_goes_to_the_hazy_pictures_only(photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee"), photo("chelsea")])
    depth = torch.rand(3, 72, 88, generator=torch.Generator().manual_seed(0))
    y = apply(x, [[draw()], [], [draw(seed=1)]], depth=depth)
    assert torch.equal(y[1], x[1])
    assert torch.equal(y[2:], Haze().apply(x[2:], [draw(seed=1)], depth[2:]))


def test_nothing_at_zero_depth_and_all_light_far_away(photo: Photo) -> None:
    depth = torch.zeros(1, 72, 88)
    depth[:, :, 44:] = 1
    p = replace(draw(10.0), light=(0.8, 0.8, 0.8), fade=0.0, glow=0.0)
    y = apply(photo(), [[p]], depth=depth)
    torch.testing.assert_close(y[..., :44], photo()[..., :44])
    torch.testing.assert_close(y[..., 44:], torch.full((1, 3, 72, 44), 0.8), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", HazeParams.kinds)
def test_no_scattering_no_haze(kind: str, photo: Photo) -> None:
    p = replace(draw(kind=kind), beta=1e-7)
    torch.testing.assert_close(apply(photo(), [[p]]), photo(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", HazeParams.kinds)
def test_haze_lowers_contrast_towards_its_light(kind: str, photo: Photo) -> None:
    p = replace(draw("heavy", kind=kind), fade=0.0, glow=0.0)
    y = apply(photo(), [[p]])
    assert y.std() < 0.7 * photo().std()
    light = torch.tensor(p.light)[:, None, None]
    assert ((y - light).abs() <= (photo() - light).abs() + 1e-6).all()


def test_light_fades_towards_the_bottom() -> None:
    x = torch.zeros(1, 3, 40, 30)
    p = replace(draw(), light=(0.8, 0.8, 0.8), beta=10.0, near=1.0, fade=0.25, glow=0.0)
    y = apply(x, [[p]])[0, 0, :, 0]
    torch.testing.assert_close(y, 0.8 * torch.linspace(1, 0.75, 40), rtol=0, atol=1e-3)


def test_some_light_fades_as_in_dense_smog() -> None:
    fades = torch.tensor([draw(seed=seed).fade for seed in range(400)])
    assert 0.3 < (fades == 0).float().mean() < 0.5
    assert 0.12 < (fades > 0.25).float().mean() < 0.28
    assert 0.5 < fades.max() <= 0.6


def test_light_glows_around_a_spot() -> None:
    x = torch.zeros(1, 3, 41, 61)
    p = replace(draw(), light=(0.8, 0.8, 0.8), beta=20.0, near=1.0, fade=0.0, glow=0.5, spot=(0.5, 0.0))
    y = apply(x, [[p]])[0, 0]
    assert y.argmax() == 30, "brightest in the middle of the upper edge"
    torch.testing.assert_close(y, y.flip(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(y[-1, [0, -1]], torch.full((2,), 0.4), rtol=0, atol=1e-3)
    torch.testing.assert_close(y[30, 30], torch.tensor(0.8 * (1 - 0.5 * 30 / 50)), rtol=0, atol=1e-3)


def test_most_haze_glows_and_nothing_else_is_drawn_otherwise() -> None:
    drawn = [draw(seed=seed) for seed in range(400)]
    glows = torch.tensor([p.glow for p in drawn])
    assert 0.18 < (glows == 0).float().mean() < 0.32
    assert 0.28 < (glows > 0.15).float().mean() < 0.42
    assert len({p.spot for p in drawn}) == 400
    generator = torch.Generator().manual_seed(0)
    degradation("haze").sample("medium", generator)
    assert torch.rand(1, generator=generator).item() == pytest.approx(0.6816, abs=1e-4), "as before there was a glow"


def test_even_haze_is_nearly_the_same_everywhere() -> None:
    def spread(kind: str) -> float:
        x = torch.zeros(1, 3, 64, 64)
        pictures = [apply(x, [[replace(draw("heavy", s, kind), fade=0.0, glow=0.0)]]) for s in range(10)]
        return sum((y[:, 1].std() / y[:, 1].mean()).item() for y in pictures)

    assert spread("even") < 0.6 * spread("landscape")


@pytest.mark.parametrize("seed", range(5))
def test_depth_fields(seed: int, photo: Photo) -> None:
    p = draw(seed=seed, kind="landscape")
    shape = DepthParams(p.horizon, p.power, 0.0, p.relief, p.cue)
    depth = depth_field(photo()[0], shape, torch.Generator().manual_seed(p.seed))
    assert depth.shape == (72, 88)
    assert depth.min() >= 0
    assert depth.max() == pytest.approx(1)
    assert depth[:10].mean() > depth[-10:].mean() + 0.2, "the top of a landscape is farther away"


def test_bright_parts_are_far(photo: Photo) -> None:
    x = torch.zeros(3, 64, 64)
    x[:, :, 32:] = 1
    depth = depth_field(x, DepthParams(0.3, 1.0, 0.0, 0.0, 0.5), torch.Generator().manual_seed(0))
    assert depth[:, 40:].mean() > depth[:, :24].mean() + 0.3


@pytest.mark.parametrize(
    "depth",
    [torch.rand(72, 88), torch.rand(1, 1, 72, 88), torch.rand(1, 72, 87), torch.rand(2, 72, 88),
     -torch.rand(1, 72, 88), torch.full((1, 72, 88), torch.nan), torch.full((1, 72, 88), torch.inf)],
)  # fmt: skip
def test_wrong_depth(depth: torch.Tensor, photo: Photo) -> None:
    with pytest.raises(TensorShapeError, match="depth"):
        apply(photo(), [[draw()]], depth=depth)
    with pytest.raises(TensorShapeError, match="depth"):
        Haze().apply(photo(), [draw()], depth)


def test_depth_of_zero_everywhere(photo: Photo) -> None:
    assert torch.equal(apply(photo(), [[draw()]], depth=torch.zeros(1, 72, 88)), photo())
