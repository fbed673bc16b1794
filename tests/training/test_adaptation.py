"""Adapting a network to a user's pairs: what is learnt, kept, continued and refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from moir.adapted import load_adapter, read_adapter_facts
from moir.adapters import METHODS
from moir.base.errors import InvalidValueError, OutputExistsError, RecipeError, TrainingError, UnknownNameError
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.datasets import DamagedPictureError, FolderMissingError, PairSizeError, UnpairedError
from moir.models import create_model, load_model
from moir.picture import from_tensor, write
from moir.training.adaptation import adapt
from moir.training.adaptation_data import HeldOut, Pair, Patches, Source, in_folder, load_pairs, split
from moir.training.adaptation_fit import fit, recalibrate, score
from moir.training.adaptation_settings import Adaptation, read_settings

QUICK = {"batch": 2, "patch": 16, "check_every": 5, "learning_rate": 0.02}


@pytest.fixture
def model(tiny_network, tmp_path):
    """The path of a tiny network's weights."""
    path = tmp_path / "tiny.safetensors"
    write_tensors(path, tiny_network.state_dict())
    Card("tiny", "test_compact", tiny_network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Six pairs of 32x40 px (width, height) that are much alike; the inputs are too dark."""
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        coarse = torch.rand(1, 3, 10, 8, generator=generator)
        target = 0.3 + 0.4 * torch.nn.functional.interpolate(coarse, size=(40, 32), mode="bilinear")[0]
        write(from_tensor(target), tmp_path / "pairs" / "target" / f"{number}.png")
        write(from_tensor(target - 0.15), tmp_path / "pairs" / "Input" / f"{number}.png")
    return tmp_path / "pairs"


def run(model, source, output, method="ssf", overwrite=False, on_step=None, **settings):
    plan = Adaptation(method=method, **{"steps": 20, **QUICK, **settings})
    return adapt(model, "bright", source, output, plan, device="cpu", precision="float32", overwrite=overwrite,
                 on_step=on_step)  # fmt: skip


def test_the_adapter_is_better_on_pairs_held_out_and_its_card_says_so(model, folder, tmp_path):
    seen = []
    out = tmp_path / "out" / "bright.safetensors"
    found = run(model, in_folder(folder), out, on_step=seen.append)
    assert found.path == out
    assert found.fitted.gain > 1
    assert (seen[0].step, seen[0].loss, seen[0].scored) == (0, None, seen[0].base)
    assert [p.step for p in seen if p.scored is not None] == [0, 5, 10, 15, 20]
    assert seen[-1].share == 1
    assert seen[-1].best == max(p.scored for p in seen if p.scored is not None)
    assert not out.with_suffix(".unfinished").exists()

    card = json.loads(out.with_suffix(".json").read_text())
    assert card["sha256"] == sha256_of(out)
    assert (card["name"], card["method"], card["model"], card["parameters"]) == (
        "bright",
        "ssf",
        "tiny",
        found.parameters,
    )
    assert card["notes"]["data"]["pairs_held_out"] == card["notes"]["held_out"]["n"] == 1
    assert card["notes"]["data"]["pairs_trained_on"] == 5
    assert card["notes"]["held_out"]["psnr_after"] - card["notes"]["held_out"]["psnr_before"] == pytest.approx(
        found.fitted.gain, abs=0.01
    )
    assert card["notes"]["training"]["seed"] == 0
    assert read_adapter_facts(out).notes == card["notes"]

    # What the file gives on a fresh network is what was scored.
    network, _ = load_model(model)
    load_adapter(network, out)
    settings = Adaptation(method="ssf", steps=20, **QUICK)
    _, held = split(load_pairs(in_folder(folder), 0), settings)
    assert score(network, HeldOut(held, 0), "cpu") == pytest.approx(found.fitted.after, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_adapts(model, folder, tmp_path, method):
    if method == "fact":
        pytest.skip("a network of 3x3 convolutions has no place for it")
    found = run(model, in_folder(folder), tmp_path / "a.safetensors", method)
    assert found.fitted.gain > 0.01


def test_a_killed_run_goes_on_as_if_nothing_had_happened(model, folder, tmp_path):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    expected = run(model, in_folder(folder), whole, "adaptir")

    def stop(progress):
        if progress.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, in_folder(folder), parts, "adaptir", on_step=stop)
    assert parts.with_suffix(".unfinished").is_dir()
    assert not parts.exists()
    again = []
    found = run(model, in_folder(folder), parts, "adaptir", on_step=again.append)
    assert again[0].step == 10  # the last scoring before it was stopped
    assert found.fitted.after == expected.fitted.after
    one, two = load_file(whole), load_file(parts)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_an_unfinished_run_of_other_settings_is_not_continued(model, folder, tmp_path):
    out = tmp_path / "a.safetensors"

    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, in_folder(folder), out, on_step=stop)
    with pytest.raises(TrainingError, match="unfinished run with other pairs or settings"):
        run(model, in_folder(folder), out, learning_rate=0.01)
    run(model, in_folder(folder), out, learning_rate=0.01, overwrite=True)
    with pytest.raises(OutputExistsError):
        run(model, in_folder(folder), out)


def test_nothing_is_written_that_is_not_better(model, folder, tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(TrainingError, match=r"nothing better than tiny alone .* 1 pairs held out \(\d+\.\d\d dB\)"):
        run(model, in_folder(folder), out, learning_rate=1e-12, steps=500, patience=2)
    assert not list(tmp_path.glob("a.*"))


def test_it_stops_when_nothing_better_comes(model, folder, tmp_path):
    seen = []
    with pytest.raises(TrainingError, match="in 10 steps nothing better"):
        run(model, in_folder(folder), tmp_path / "a.safetensors", learning_rate=1e-12, steps=500, patience=2,
            on_step=seen.append)  # fmt: skip
    assert seen[-1].step == 10


def test_time_ends_a_run_as_well(model, folder, tmp_path):
    found = run(model, in_folder(folder), tmp_path / "a.safetensors", steps=None, minutes=0.02)
    assert 1 < found.fitted.seconds < 20
    assert found.fitted.steps > 1


def test_clean_pictures_are_damaged_on_the_fly(model, folder, tmp_path):
    source = Source(folder / "target", spec="lowlight=heavy")
    found = run(model, source, tmp_path / "a.safetensors", steps=30)
    assert found.fitted.gain > 0.1
    settings = Adaptation(**QUICK)
    patches = Patches(load_pairs(source, 0), settings, source.damage)
    (x, y), (again, _), (other, _) = patches.batch(0), patches.batch(0), patches.batch(1)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert x.mean() < 0.7 * y.mean()


def test_patches_of_a_pair_belong_together():
    target = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    pair = Pair("a", 255 - target, target)
    settings = Adaptation(batch=16, patch=24)
    x, y = Patches([pair], settings).batch(3)
    assert x.shape == (16, 3, 24, 24)
    assert torch.allclose(x + y, torch.ones(()))
    assert len({patch.numpy().tobytes() for patch in y}) == 16
    plain = Patches([pair], Adaptation(batch=16, patch=24, turns=False, flips=False)).batch(3)[1]
    windows = target.float().div(255).unfold(1, 24, 1).unfold(2, 24, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 24, 24)
    assert all(any(torch.equal(patch, window) for window in windows) for patch in plain)


def test_the_split_is_by_seed_and_leaves_something_on_both_sides():
    picture = torch.zeros(3, 20, 20, dtype=torch.uint8)
    pairs = [Pair(str(n), picture, picture) for n in range(20)]
    training, held = split(pairs, Adaptation(seed=1))
    assert (len(training), len(held)) == (16, 4)
    assert not {p.name for p in training} & {p.name for p in held}
    assert [p.name for p in split(pairs, Adaptation(seed=1))[1]] == [p.name for p in held]
    assert [p.name for p in split(pairs, Adaptation(seed=2))[1]] != [p.name for p in held]
    assert [len(part) for part in split(pairs[:2], Adaptation(held_out=0.9))] == [1, 1]
    assert len(split(pairs, Adaptation(held_out=0.9, most_held_out=3))[1]) == 3


def test_running_statistics_are_of_the_present_weights_and_the_rest_is_left_alone():
    torch.manual_seed(0)
    network = create_model("test_compact", adapter="adaptir").eval()
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.running_mean.fill_(9)
    target = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    patches = Patches([Pair("a", target, target)], Adaptation(batch=2, patch=16))
    recalibrate(network, network, patches, "cpu", torch.float32)
    assert norm.running_mean.abs().max() < 5
    assert norm.momentum == 0.1
    assert not network.training


def test_a_part_of_a_network_can_be_fitted_without_an_adapter(folder):
    torch.manual_seed(0)
    network = create_model("test_compact")
    settings = Adaptation(steps=10, **QUICK)
    training, held = split(load_pairs(in_folder(folder), 0), settings)
    fitted = fit(network, network.head, Patches(training, settings), HeldOut(held, 0), settings)
    assert fitted.gain > 0.01
    assert score(network, HeldOut(held, 0), "cpu") == pytest.approx(fitted.after, abs=1e-4)


def test_pairs_that_cannot_be_used_are_named(model, folder, tmp_path, photograph):
    out = tmp_path / "a.safetensors"
    write(from_tensor(photograph[:, :40, :30]), folder / "Input" / "2.png", overwrite=True)
    write(from_tensor(photograph[:, :20, :30]), folder / "Input" / "3.png", overwrite=True)
    with pytest.raises(PairSizeError, match=r"2\.png is 30x40 .* 32x40.*3\.png is 30x20"):
        run(model, in_folder(folder), out)
    (folder / "Input" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DamagedPictureError, match=r"2\.png"):
        run(model, in_folder(folder), out)
    (folder / "Input" / "2.png").rename(folder / "Input" / "two.png")
    with pytest.raises(UnpairedError, match=r"two\.png"):
        run(model, in_folder(folder), out)
    for number in "0345":
        (folder / "Input" / f"{number}.png").unlink()
        (folder / "target" / f"{number}.png").unlink()
    (folder / "Input" / "two.png").unlink()
    (folder / "target" / "2.png").unlink()
    with pytest.raises(TrainingError, match=r"one pair .* is too few"):
        run(model, in_folder(folder), out)
    (folder / "Input" / "1.png").unlink()
    with pytest.raises(FolderMissingError, match="holds no pictures"):
        run(model, in_folder(folder), out)
    with pytest.raises(FolderMissingError, match=r"no folder input .*there: clean"):
        (tmp_path / "other" / "clean").mkdir(parents=True)
        in_folder(tmp_path / "other")
    with pytest.raises(FolderMissingError, match="does not exist"):
        load_pairs(Source(folder / "target", tmp_path / "nowhere"), 0)
    assert not list(tmp_path.glob("a.*"))


def test_pictures_that_are_too_small_are_named():
    tiny = torch.zeros(3, 12, 40, dtype=torch.uint8)
    with pytest.raises(TrainingError, match="a is only 12 px"):
        Patches([Pair("a", tiny, tiny)], Adaptation())


def test_requests_that_cannot_work_are_refused_before_any_work(model, folder, tmp_path):
    source = in_folder(folder)
    with pytest.raises(InvalidValueError, match=r"cannot be written to .*a\.pth"):
        run(model, source, tmp_path / "a.pth")
    with pytest.raises(UnknownNameError, match="adaptir"):
        Adaptation(method="adaptr")
    with pytest.raises(InvalidValueError, match="cannot be named 'my task'"):
        adapt(model, "my task", source, tmp_path / "a.safetensors")
    with pytest.raises(TrainingError, match=r"either damaged pictures .* not both"):
        Source(folder / "target", folder / "Input", "noise=25")
    with pytest.raises(TrainingError, match=r"keeps the size .* no pairs yet: say what to do to them"):
        run(model, Source(folder / "target"), tmp_path / "a.safetensors")
    with pytest.raises(UnknownNameError, match="learning_rate"):
        read_settings("ssf", {"learning_rat": "1"})
    with pytest.raises(RecipeError, match="batch='one'"):
        read_settings("ssf", {"batch": "one"})
    with pytest.raises(UnknownNameError, match="rank"):
        run(model, source, tmp_path / "a.safetensors", "lora", options={"rang": 2})
    assert read_settings("lora", {"loss.fft": "0.1", "adapter.rank": "3"}).loss.fft == 0.1
    assert not list(tmp_path.glob("a.*"))
