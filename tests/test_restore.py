import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import InvalidValueError, OutputExistsError, TensorShapeError, UnknownNameError
from moir.findings import Finding, Inspection, uncertainty


def test_every_kind_of_input(tiny_restorer, photograph, tmp_path):
    small = photograph[:, :40, :60]
    array = (small.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    image = Image.fromarray(array)
    image.save(tmp_path / "p.png")
    results = [tiny_restorer(x).tensor for x in (array, image, tmp_path / "p.png", str(tmp_path / "p.png"))]
    for result in results:
        assert result.shape == (3, 40, 60)
        assert torch.equal(result, results[0])
    assert not torch.equal(results[0], tiny_restorer(small).tensor - 1)
    with pytest.raises(TensorShapeError, match="list"):
        tiny_restorer([1, 2])


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (5, 3), (64, 64), (129, 65)])
def test_any_size(tiny_restorer, size):
    result = tiny_restorer(torch.rand(3, *size))
    assert result.tensor.shape == (3, *size)
    assert result.tensor.min() >= 0
    assert result.tensor.max() <= 1


def test_strength_blends_between_input_and_result(tiny_restorer, photograph):
    full = tiny_restorer(photograph).tensor
    none = tiny_restorer(photograph, strength=0).tensor
    half = tiny_restorer(photograph, strength=0.5).tensor
    assert torch.equal(none, photograph)
    assert not torch.allclose(full, photograph)
    assert torch.allclose(half, (full + photograph) / 2, atol=1e-6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidValueError, match="strength"):
            tiny_restorer(photograph, strength=wrong)


def test_a_batch_gives_what_its_pictures_give_one_by_one(tiny_restorer, photograph):
    pictures = [photograph[:, :48, :64], photograph[:, 100:148, :64], photograph[:, :30, :30]]
    together = tiny_restorer.batch(pictures)
    for picture, result in zip(pictures, together, strict=True):
        alone = tiny_restorer(picture)
        assert torch.allclose(result.tensor, alone.tensor, atol=1e-6)
        assert [f.type for f in result.estimate] == [f.type for f in alone.estimate]


def test_the_account(tiny_restorer, photograph):
    report = tiny_restorer(photograph).report()
    assert set(report) == {
        "width", "height", "model", "expert", "granularity", "estimate", "uncertainty", "strength", "tiles", "seconds",
    }  # fmt: skip
    probabilities = [finding["probability"] for finding in report["estimate"]]
    assert len(probabilities) == 7
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 <= report["uncertainty"] <= 1
    assert report["width"] == report["height"] == 256


def test_tasks(tiny_restorer, photograph):
    free = tiny_restorer(photograph).tensor
    told = tiny_restorer(photograph, task="derain").tensor
    both = tiny_restorer(photograph, task=["derain", "denoise"]).tensor
    assert not torch.equal(free, told)
    assert not torch.equal(told, both)
    with pytest.raises(UnknownNameError, match="derain"):
        tiny_restorer(photograph, task="derian")
    with pytest.raises(InvalidValueError, match="no task"):
        tiny_restorer(photograph, task=[])


def test_grey_alpha_and_depth_stay(tiny_restorer):
    generator = np.random.default_rng(0)
    grey = Image.fromarray(generator.integers(0, 256, (20, 24), dtype=np.uint8))
    assert tiny_restorer(grey).image.mode == "L"
    clear = generator.integers(0, 256, (20, 24, 4), dtype=np.uint8)
    result = tiny_restorer(Image.fromarray(clear)).image
    assert result.mode == "RGBA"
    assert np.array_equal(np.asarray(result)[..., 3], clear[..., 3])
    deep = generator.integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    assert tiny_restorer(deep).picture.to_numpy().dtype == np.uint16


def test_what_lies_under_full_transparency_does_not_bleed(tiny_restorer, photograph):
    picture = (photograph[:, :64, :64].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[20:40, 20:40] = 0
    dark, bright = picture.copy(), picture.copy()
    dark[20:40, 20:40], bright[20:40, 20:40] = 0, 255
    results = [tiny_restorer(np.concatenate([p, alpha], -1)).tensor for p in (dark, bright)]
    visible = torch.from_numpy(alpha[..., 0] > 0)
    assert torch.equal(results[0][:, visible], results[1][:, visible])


def test_saving(tiny_restorer, photograph, tmp_path):
    result = tiny_restorer(photograph)
    result.save(tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as written:
        assert np.array_equal(np.asarray(written), np.asarray(result.image))
    with pytest.raises(OutputExistsError):
        result.save(tmp_path / "r.png")
    result.save(tmp_path / "r.png", overwrite=True)


def test_uncertainty_is_the_mean_entropy():
    sure, unsure = 50.0, 0.0
    assert uncertainty({}) is None
    assert uncertainty({"presence": torch.tensor([[sure, -sure, sure, -sure, sure, -sure, sure]])}) < 1e-6
    half = torch.tensor([[unsure, sure, unsure, sure, unsure, sure, sure]])
    assert uncertainty({"presence": half}) == pytest.approx(3 / 7, abs=1e-6)
    assert uncertainty({"presence": half, "uncertainty": torch.tensor([0.25])}) == 0.25


def test_inspecting_finds_what_restoring_finds(tiny_restorer):
    x = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    found, restored = tiny_restorer.inspect(x), tiny_restorer(x)
    assert found.estimate == restored.estimate
    report = restored.report()
    assert {k: v for k, v in found.report().items() if k != "seconds"} == {
        k: v for k, v in report.items() if k not in ("seconds", "strength", "tiles")
    }


def test_a_sentence_says_what_matters():
    def said(*found):
        return Inspection(8, 8, found, 0.1, "m", "m", "all", 0.1).sentence()

    jpeg, dark = Finding("jpeg", "light", 0.9), Finding("lowlight", "heavy", 0.6)
    assert said(jpeg, dark) == "The picture has light JPEG blocks (90% sure) and heavy darkness (60% sure)."
    assert said(Finding("rain", "light", 0.1)) == "No damage found (at most 10% for any kind)."
    assert said(Finding("rain", "light", 0.4)) == "No damage found; perhaps light rain (40%)."
    assert said() == "m restores without saying what it finds."
