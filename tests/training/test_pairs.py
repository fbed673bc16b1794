from collections import Counter

import pytest
import torch

from moir.base.errors import RecipeError
from moir.base.names import TYPES
from moir.datasets import DATASETS, MIXTURES, FolderMissingError, PairedSet, RootMissingError, UnpairedError
from moir.models import create_model
from moir.picture import from_tensor, read, write
from moir.training import load_recipe
from moir.training.losses import presence_loss, terms
from moir.training.pairs import _source, add_noise, open_pairs
from moir.training.recipe import Data, Loss

pytestmark = pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")


@pytest.fixture
def samples(data_folder):
    return open_pairs(Data(mixture="aio5", root=str(data_folder), patch=16), seed=3)


def test_an_epoch_holds_every_pair_as_often_as_published(samples):
    # BSD400 and WED x3 for each of three noise levels, RainTrainL x120, OTS x1, GoPro x5, LOL x20; two pairs of each.
    assert samples.epoch == 2 * (2 * 3 * 3 + 120 + 1 + 5 + 20)
    one, two = ([samples.place(i) for i in range(e * samples.epoch, (e + 1) * samples.epoch)] for e in (0, 1))
    assert [(s.label, n) for s, n in one] != [(s.label, n) for s, n in two]
    for epoch in (one, two):
        counts = Counter((source.label, number) for source, number in epoch)
        expected = {"noise=15": 6, "noise=25": 6, "noise=50": 6, "raintrainl": 120, "ots": 1, "gopro_train_crops": 5,
                    "lolv1_train": 20}  # fmt: skip
        assert counts == {(label, n): times for label, times in expected.items() for n in (0, 1)}


def test_a_sample_depends_on_seed_and_number_alone(samples, data_folder):
    again = open_pairs(Data(mixture="aio5", root=str(data_folder), patch=16), seed=3)
    for number in (5 * samples.epoch + 7, 0, samples.epoch - 1):
        one, two = samples[number], again[number]
        assert all(torch.equal(one[key], two[key]) for key in one)
    other = open_pairs(Data(mixture="aio5", root=str(data_folder), patch=16), seed=4)
    assert [samples.place(i)[0].label for i in range(20)] != [other.place(i)[0].label for i in range(20)]


def test_patches_are_of_the_same_place_in_both_pictures(samples):
    seen = Counter()
    for number in range(60):
        source, _ = samples.place(number)
        sample = samples[number]
        assert sample["input"].shape == sample["target"].shape == (3, 16, 16)
        assert samples.groups[int(sample["groups"].argmax())] == source.label
        assert [name for name, there in zip(TYPES, sample["presence"], strict=True) if there] == list(source.types)
        seen[source.types] += 1
        if source.sigma is None:
            assert torch.allclose(sample["input"], 1 - sample["target"], atol=1e-6)
    assert {("rain",), ("noise",), ("lowlight",)} <= set(seen)


def test_pairs_are_cropped_to_a_multiple_of_16_about_the_centre(tmp_path, photograph):
    for folder in ("in", "out"):
        write(from_tensor(photograph[:, :40, :37]), tmp_path / folder / "a.png")
    data = Data(pairs={"input": str(tmp_path / "in"), "target": str(tmp_path / "out")}, patch=32)
    centre = read(tmp_path / "in" / "a.png").rgb[:, 4:36, 2:34]
    patches = [open_pairs(data, seed)[0]["target"] for seed in range(30)]
    turned = [torch.rot90(centre, k, (1, 2)) for k in range(4)]
    forms = turned + [t.flip(2) for t in turned]
    found = {next(i for i, form in enumerate(forms) if torch.equal(form, patch)) for patch in patches}
    assert len(found) == 8  # flips and quarter turns, all of them


def test_small_pictures_are_continued_by_reflection(tmp_path, photograph):
    write(from_tensor(photograph[:, :20, :6]), tmp_path / "in" / "a.png")
    write(from_tensor(photograph[:, :20, :6]), tmp_path / "out" / "a.png")
    data = Data(pairs={"input": str(tmp_path / "in"), "target": str(tmp_path / "out")}, patch=32)
    patch = open_pairs(data, 0)[0]["target"]
    assert patch.shape == (3, 32, 32)
    whole = read(tmp_path / "in" / "a.png").rgb
    assert set(patch.flatten().tolist()) <= set(whole.flatten().tolist())


def test_noise_is_made_as_published():
    generator = torch.Generator().manual_seed(0)
    noisy = add_noise(torch.full((3, 200, 200), 128 / 255), 25, generator) * 255
    assert torch.allclose(noisy, noisy.round(), atol=1e-4)
    assert noisy.mean().item() == pytest.approx(127.5, abs=0.3)  # truncated, not rounded
    assert noisy.std().item() == pytest.approx(25, rel=0.02)
    extremes = add_noise(torch.tensor([0.0, 1.0]).repeat(500), 50, generator)
    assert extremes.min() == 0
    assert extremes.max() == 1


def test_missing_data_is_known_before_training(tmp_path, data_folder):
    with pytest.raises(RootMissingError):
        open_pairs(Data(mixture="aio3", root=str(tmp_path / "none")), 0)
    (data_folder / "dehazing").rename(data_folder / "x")
    (data_folder / "llie").rename(data_folder / "y")
    with pytest.raises(FolderMissingError, match=r"aio5 is not complete: ots.*lolv1_train"):
        open_pairs(Data(mixture="aio5", root=str(data_folder)), 0)
    (data_folder / "deraining/RainTrainL/gt/norain-2.png").unlink()
    with pytest.raises(UnpairedError, match="rain-2"):
        open_pairs(Data(mixture="derainL", root=str(data_folder)), 0)


def test_every_mixture_of_one_size_has_known_types():
    for parts in MIXTURES.values():
        for part in parts:
            if DATASETS[part.dataset].scale == 1:
                assert _source(part, PairedSet("x", ())).types


def test_pictures_of_which_nothing_is_known_do_not_teach_the_estimate(photograph):
    logits = torch.randn(2, 7)
    known = torch.tensor([[0.0, 1, 0, 0, 0, 0, 1]])
    both = torch.cat([known, torch.full((1, 7), -1.0)])
    assert torch.equal(presence_loss(logits, both), presence_loss(logits[:1], known))
    network = create_model("test_compact")
    x = photograph[None, :, :32, :32]
    sample = {"target": x, "presence": both[1:], "degree": torch.full((1, 7), -1)}
    found = terms(network, x, network.analyse(x), sample, Loss())
    assert found["presence"].item() == found["degree"].item() == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.folders", "[x]", "exactly one of folders .*folders and mixture given"),
        ("data.mixture", "null", "exactly one of"),
        ("data.root", "null", "needs root"),
        ("data.mixture", "aoi3", "did you mean 'aio3'"),
        ("data.pairs", "{inputs: a, target: b}", "did you mean input"),
        ("data.instruct", "0.3", "instruct is for clean pictures"),
        ("data.damage.clean", "0.3", "damage is for clean pictures"),
        ("steps", "3", "not both"),
        ("epochs", "null", "one of them is needed"),
        ("optimiser.warmup", "3", "not both"),
        ("optimiser.warmup_epochs", "3", "longer than the run"),
        ("optimiser.schedule_epochs", "0.5", "rest would train at the final rate"),
        ("optimiser.schedule", "hold", "for the schedule 'cosine'"),
    ],
)
def test_recipes_that_do_not_add_up_are_refused(mixture_file, key, value, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(mixture_file, {key: value})


def test_epochs_of_an_endless_stream_are_refused(recipe_file):
    with pytest.raises(RecipeError, match="endless stream without epochs; use steps"):
        load_recipe(recipe_file, {"steps": "null", "epochs": "3"})
    with pytest.raises(RecipeError, match="this recipe counts steps"):
        load_recipe(recipe_file, {"optimiser.warmup_epochs": "3"})
    with pytest.raises(RecipeError, match=r"validation\.root"):
        load_recipe(recipe_file, {"validation.benchmarks": "[aio3]"})
