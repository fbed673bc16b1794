import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import PictureCorruptError, PictureNotFoundError
from moir.degrade import Params, apply, degradation, params_from_json, parse, sample
from moir.degrade.snow import Snow, SnowParams, deep_flakes, flakes

Photo = Callable[..., torch.Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Three masks, one deeper down, one with capitals in its suffix, and a file that is none."""
    (tmp_path / "more").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.JPG", "more/c.png"):
        pixels = np.where(rng.random((100, 120)) < 0.1, rng.integers(50, 256, (100, 120)), 0)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "readme.txt").write_text("Snow100K")
    return tmp_path


@pytest.mark.parametrize("level", ["light", "heavy", "outside"])
def test_snow_only_whitens(level: str, photo: Photo) -> None:
    for seed in range(3):
        y = apply(photo(), [[degradation("snow").sample(level, generator(seed))]])
        assert (y >= photo()).all()
        assert (y > photo() + 0.1).any()


def test_white_stays_white() -> None:
    x = torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(apply(x, [[degradation("snow").sample("heavy", generator())]]), x)


def test_motion_draws_the_flakes_out_along_the_fall() -> None:
    def elongation(motion: float, angle: float) -> tuple[float, float]:
        m = flakes(160, 160, SnowParams("flakes", 0, 0.5, angle=angle, motion=motion), generator())
        dy, dx = torch.gradient(m)
        xx, yy, xy = (dx * dx).sum().item(), (dy * dy).sum().item(), (dx * dy).sum().item()
        values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
        return values[1] / values[0], float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))

    assert elongation(0.0, 0.0)[0] < 1.2
    ratio, across = elongation(4.0, 30.0)
    assert ratio > 1.5
    assert (across + 90) % 180 - 90 == pytest.approx(30, abs=6)


def test_scale_opacity_amount_and_veil_act_as_named() -> None:
    def mask(**values: Any) -> torch.Tensor:
        return flakes(128, 128, replace(SnowParams("flakes", 0, 0.5), **values), generator())

    assert mask(opacity=0.5).max() < 0.65 * mask(opacity=1.0).max()
    assert mask(amount=0.2).mean() < 0.5 * mask(amount=0.8).mean()
    assert mask(veil=0.2).min() >= 0.6 * 0.2 - 1e-5
    assert mask().min() == 0

    def roughness(m: torch.Tensor) -> float:
        return (m.diff(dim=1).square().mean() / m.var()).item()

    assert roughness(mask(scale=1.5)) < 0.8 * roughness(mask(scale=0.6))


def test_deep_flakes_grow_with_the_largest_and_with_motion() -> None:
    def mask(**values: Any) -> torch.Tensor:
        return deep_flakes(128, 128, replace(SnowParams("depth", 0, 0.5), **values), generator())

    def roughness(m: torch.Tensor) -> float:
        return (m.diff(dim=1).square().mean() / m.var()).item()

    assert roughness(mask(largest=15.0)) < 0.8 * roughness(mask(largest=3.0))
    assert mask(amount=0.2).mean() < 0.5 * mask(amount=0.8).mean()
    assert mask(veil=0.2).min() >= 0.6 * 0.2 - 1e-5
    m = mask(motion=3.0, angle=0.0)
    assert m.diff(dim=1).square().mean() > 1.2 * m.diff(dim=0).square().mean(), "trails run downwards"


# -- masks from a folder --


@pytest.mark.parametrize("way", ["class", "sample", "spec"])
def test_masks_are_reached_from_every_entrance(
    way: str, masks: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(masks.parent)
    masks = Path(masks.name)
    used = set()
    for seed in range(20):
        if way == "class":
            p: Params = Snow(masks).sample("heavy", generator(seed), kind="mask")
        elif way == "sample":
            (p,) = sample({"snow": "heavy"}, generator(seed), {"snow": "mask"}, snow_masks=masks)
        else:
            (p,) = parse("snow:mask=heavy").sample(generator(seed), snow_masks=str(masks))
        assert isinstance(p, SnowParams)
        assert p.kind == "mask"
        assert Path(str(p.mask)).is_absolute(), "a record must be good from any working directory"
        used.add(Path(str(p.mask)).name)
    assert used == {"a.png", "b.JPG", "c.png"}
    again = params_from_json(json.loads(json.dumps(p.to_json())))
    assert again == p
    y = apply(photo(), [[p]])
    assert torch.equal(apply(photo(), [[again]]), y)
    assert (y >= photo()).all()
    assert (y > photo() + 0.05).any()


def test_a_mask_is_the_closed_form_at_amount_one(tmp_path: Path, photo: Photo) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (72, 88)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    m = torch.from_numpy(pixels).float() / 255
    p = Snow(tmp_path).sample(1.0, generator(), "mask")
    torch.testing.assert_close(apply(photo(), [[p]]), photo() * (1 - m) + m, rtol=0, atol=1e-6)
    half = Snow(tmp_path).sample(0.5, generator(), "mask")
    clear = (1 - m) ** 0.5
    torch.testing.assert_close(apply(photo(), [[half]]), photo() * clear + 1 - clear, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 130), (72, 88), (150, 60)])
def test_masks_fit_any_picture(size: tuple[int, int], masks: Path, photo: Photo) -> None:
    x = photo(height=size[0], width=size[1])
    p = Snow(masks).sample("heavy", generator(), "mask")
    y = apply(x, [[p]])
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_worse_masks_are_worse(masks: Path, photo: Photo) -> None:
    damage = [
        sum((apply(photo(), [[Snow(masks).sample(d, generator(s), "mask")]]) - photo()).mean().item() for s in range(6))
        for d in ("light", "medium", "heavy")
    ]
    assert damage[0] < 0.8 * damage[1] < 0.8**2 * damage[2]


def test_missing_masks(tmp_path: Path, photo: Photo) -> None:
    for folder in (None, tmp_path, tmp_path / "absent"):
        with pytest.raises(PictureNotFoundError, match="snow_masks"):
            parse("snow:mask=heavy").sample(generator(), snow_masks=folder)
    with pytest.raises(PictureNotFoundError, match="gone"):
        apply(photo(), [[SnowParams("mask", 0, 1.0, mask=str(tmp_path / "gone.png"))]])
    with pytest.raises(PictureNotFoundError):
        apply(photo(), [[SnowParams("mask", 0, 1.0)]])


def test_a_mask_that_is_no_picture(tmp_path: Path, photo: Photo) -> None:
    (tmp_path / "m.png").write_bytes(b"\x89PNG nonsense")
    p = Snow(tmp_path).sample("heavy", generator(), "mask")
    with pytest.raises(PictureCorruptError, match=r"m\.png"):
        apply(photo(), [[p]])
