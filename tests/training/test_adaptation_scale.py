"""Adapting networks that make pictures larger: targets are as many times larger, and everything stays aligned."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import moir
from moir.adapted import load_adapter
from moir.base.errors import TrainingError
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.cli.app import app
from moir.datasets import PairSizeError
from moir.models import create_model, load_model
from moir.picture import from_tensor, read, write
from moir.training import adaptation_data
from moir.training.adaptation import adapt
from moir.training.adaptation_data import HeldOut, Pair, Patches, Source, in_folder, load_pairs, shrunk, split
from moir.training.adaptation_fit import score
from moir.training.adaptation_settings import Adaptation

QUICK = {"batch": 2, "patch": 16, "check_every": 5, "steps": 15, "learning_rate": 0.02}
NETWORKS = {"test_edt": {"task": "sr_2"}, "test_ipt": {"task": "sr_2", "patch_size": 24}}  # a picture is one tile


@pytest.fixture(params=NETWORKS)
def model(request, tmp_path):
    """The path of the weights of a tiny network that doubles the size."""
    torch.manual_seed(0)
    network = create_model(request.param, **NETWORKS[request.param])
    path = tmp_path / "double.safetensors"
    write_tensors(path, network.state_dict())
    Card("double", request.param, network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return str(path)


@pytest.fixture
def folder(tmp_path, photograph):
    """Five pairs: targets of 41x48 px (width, height), inputs of half the size; a row and a column have no partner."""
    for number in range(5):
        target = photograph[:, 20 * number : 20 * number + 48, 40:81]
        write(from_tensor(target), tmp_path / "pairs" / "target" / f"{number}.png")
        small = shrunk((target[:, :, :40] * 255).round().to(torch.uint8), 2)
        write(from_tensor(small.float() / 255), tmp_path / "pairs" / "input" / f"{number}.png")
    return tmp_path / "pairs"


def run(model, source, output, method="lora", **settings):
    plan = Adaptation(method=method, options={"rank": 2} if method == "lora" else {}, **{**QUICK, **settings})
    return adapt(model, "sharp", source, output, plan, device="cpu", precision="float32")


def test_it_learns_from_pairs_of_two_sizes_and_is_scored_at_that_of_the_target(model, folder, tmp_path):
    out = tmp_path / "sharp.safetensors"
    found = run(model, in_folder(folder), out)
    assert found.fitted.gain > 0.1
    network, _ = load_model(model)
    load_adapter(network, out)
    _, held = split(load_pairs(in_folder(folder), 0, 2), Adaptation(**QUICK))
    assert (held[0].input.shape, held[0].target.shape) == ((3, 24, 20), (3, 48, 40))
    assert score(network, HeldOut(held, 0), "cpu") == pytest.approx(found.fitted.after, abs=1e-3)
    measure = json.loads(out.with_suffix(".json").read_text())["notes"]["held_out"]["measure"]
    assert "of the target" in measure

    restored = moir.load(model, adapter=out, device="cpu", precision="float32")(folder / "input" / "0.png")
    assert restored.tensor.shape == (3, 48, 40)
    assert restored.expert == "sharp"


def test_clean_pictures_are_shrunk_and_may_be_damaged_as_well(model, folder, tmp_path, monkeypatch):
    if "ipt" in json.loads((tmp_path / "double.json").read_text())["model"]:
        pytest.skip("what is made of pictures does not depend on the network")
    alone = run(model, Source(folder / "target"), tmp_path / "alone.safetensors")
    assert alone.fitted.gain > 0.1
    card = json.loads((tmp_path / "alone.json").read_text())
    assert card["notes"]["data"]["description"] == "clean pictures of target, shrunk 2 times (bicubic)"
    # As files of these pictures would have been.
    assert alone.fitted.before == pytest.approx(run(model, in_folder(folder), tmp_path / "p.safetensors").fitted.before)

    source = Source(folder / "target", spec="lowlight=heavy")
    run(model, source, tmp_path / "dark.safetensors", steps=30)
    card = json.loads((tmp_path / "dark.json").read_text())
    assert card["notes"]["data"]["description"].endswith("(bicubic), damaged on the fly with 'lowlight=heavy'")
    patches = Patches(load_pairs(source, 0, 2), Adaptation(**QUICK), source.damage)
    (x, y), (again, _), (other, _) = patches.batch(0), patches.batch(0), patches.batch(1)
    assert (x.shape, y.shape) == ((2, 3, 16, 16), (2, 3, 32, 32))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert x.mean() < 0.7 * y.mean()

    monkeypatch.chdir(tmp_path)  # and on the command line
    app(["adapt", model, "--task", "crisp", "--clean", str(folder / "target"), "--method", "lora", "--steps", "10",
         "--device", "cpu", "--precision", "float32", "--set", "patch=16", "--set", "batch=2", "--set", "check_every=5",
         "--set", "learning_rate=0.02"], standalone_mode=False)  # fmt: skip
    assert (tmp_path / "crisp_adapter.safetensors").is_file()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_and_views_stay_aligned(scale):
    """Every pixel of an input holds its own place, and the target shows the same place, enlarged."""
    height, width = 300, 60
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows // 2, columns, rows % 2]).to(torch.uint8)
    pair = Pair("a", places, places.repeat_interleave(scale, 1).repeat_interleave(scale, 2))
    assert pair.scale == scale
    for turned in (True, False):
        x, y = Patches([pair], Adaptation(batch=8, patch=24, turns=turned, flips=turned)).batch(1)
        assert (x.shape, y.shape) == ((8, 3, 24, 24), (8, 3, 24 * scale, 24 * scale))
        assert torch.equal(y, x.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
        assert len({patch.numpy().tobytes() for patch in x}) == 8
    ((inputs, targets),) = HeldOut([pair], 0).views
    side = 256 // scale
    assert inputs.shape == (4, 3, side, min(side, width))
    assert torch.equal(targets, inputs.repeat_interleave(scale, 2).repeat_interleave(scale, 3))


def test_large_pairs_are_cut_to_windows_that_stay_aligned(monkeypatch, tmp_path):
    rows, columns = torch.meshgrid(torch.arange(300), torch.arange(200), indexing="ij")
    places = torch.stack([rows // 2, columns, rows % 2]).float() / 255
    for number in range(2):
        write(from_tensor(places), tmp_path / "input" / f"{number}.png")
        write(
            from_tensor(places.repeat_interleave(2, 1).repeat_interleave(2, 2)), tmp_path / "target" / f"{number}.png"
        )
    monkeypatch.setattr(adaptation_data, "BUDGET", 2 * 3 * 5 * 200 * 150)
    for pair in load_pairs(in_folder(tmp_path), 0, 2):
        height, width = pair.input.shape[1:]
        assert 128 <= height < 300
        assert 128 <= width < 200
        assert torch.equal(pair.target, pair.input.repeat_interleave(2, 1).repeat_interleave(2, 2))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrinking_is_the_usual_bicubic(photograph, scale):
    picture = (photograph[:, :240, :120] * 255).round().to(torch.uint8)
    found = shrunk(picture, scale).numpy()
    for channel, values in zip(
        found, picture.numpy(), strict=True
    ):  # floats: between its two passes Pillow rounds bytes
        small = Image.fromarray(values.astype(np.float32)).resize(
            (120 // scale, 240 // scale), Image.Resampling.BICUBIC
        )
        assert np.abs(channel - np.asarray(small).clip(0, 255)).max() < 0.51


def test_sizes_that_do_not_fit_are_named_with_those_that_would(folder, tmp_path):
    write(read(folder / "target" / "1.png"), folder / "input" / "1.png", overwrite=True)  # of one size
    write(from_tensor(torch.rand(3, 30, 20)), folder / "input" / "3.png", overwrite=True)
    with pytest.raises(
        PairSizeError, match=r"1\.png is 41x48 .* 41x48 .*82x96 px is expected.*3\.png is 20x30 .*40x60 px is expected"
    ):
        load_pairs(in_folder(folder), 0, 2)
    with pytest.raises(PairSizeError, match=r"0\.png is 20x24 but its target"):  # another network
        load_pairs(in_folder(folder), 0)
    tiny = torch.zeros(3, 12, 40, dtype=torch.uint8)
    with pytest.raises(TrainingError, match="a is only 12 px wide or high; inputs need 16 px"):
        Patches([Pair("a", tiny, tiny.repeat_interleave(2, 1).repeat_interleave(2, 2))], Adaptation())
