import itertools

import pytest
import torch

from moir import degrade
from moir.base.errors import TrainingError
from moir.base.names import TYPES
from moir.training.data import DamagedPatches, Stream, load_pictures
from moir.training.recipe import Damage, Data


@pytest.fixture
def patches(photograph):
    pictures = [(photograph[:, :90, :120] * 255).to(torch.uint8), (photograph[:, 100:, 100:] * 255).to(torch.uint8)]
    return DamagedPatches(pictures, Data(folders=["x"], patch=32, instruct=0.4), seed=3)


def test_a_sample_depends_on_seed_and_number_alone(patches):
    again = DamagedPatches(patches.pictures, patches.data, seed=3)
    other = DamagedPatches(patches.pictures, patches.data, seed=4)
    for number in (0, 17, 10**9):
        one, two = patches[number], again[number]
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert not torch.equal(one["input"], other[number]["input"])
    assert not torch.equal(patches[0]["input"], patches[1]["input"])


def test_samples_say_what_was_done(patches):
    instructed = kept = clean = damaged = changed = 0
    for number in range(120):
        sample = patches[number]
        assert sample["input"].shape == sample["target"].shape == (3, 32, 32)
        assert torch.equal(sample["input"], degrade.quantise(sample["input"]))
        assert torch.equal(sample["presence"] > 0, sample["degree"] >= 0)
        if sample["remove"][-1]:
            instructed += 1
            present = sample["presence"] * (1 - sample["remove"][:-1])
            kept += bool(present.sum())
        elif sample["presence"].sum() == 0:
            clean += 1
            assert torch.allclose(sample["input"], sample["target"], atol=0.5 / 255 + 1e-6)
        else:
            damaged += 1
            changed += not torch.allclose(sample["input"], sample["target"], atol=2 / 255)
    assert changed > 0.9 * damaged > 0  # blur does nothing to a patch of sky
    assert 25 < instructed < 75
    assert kept > 0
    assert clean > 0


def test_scenes_show_a_picture_nearly_whole():
    down, across = torch.meshgrid(torch.linspace(0, 1, 90), torch.linspace(0, 1, 140), indexing="ij")
    where = (torch.stack([down, across, across]) * 255).to(torch.uint8)  # each pixel says where it is
    damage = Damage(clean=1, stored=0)
    spans = {}
    for share in (0.0, 1.0):
        data = Data(folders=["x"], patch=32, instruct=0, damage=damage, scenes=share, shrunk=0)
        patches = DamagedPatches([where], data, seed=0)
        targets = torch.stack([patches[number]["target"][:2] for number in range(40)])
        spans[share] = targets.amax((2, 3)) - targets.amin((2, 3))
    assert spans[1.0].min() > 0.7
    assert spans[1.0].max() > 0.95
    assert spans[0.0].max() < 0.45


def test_an_instruction_leaves_the_other_damage(photograph):
    damage = Damage(clean=0, single=1, named=0, types={"haze": 1}, levels={"heavy": 1}, stored=0)
    data = Data(folders=["x"], patch=32, instruct=1, damage=damage)
    patches = DamagedPatches([(photograph * 255).to(torch.uint8)], data, seed=0)
    haze = TYPES.index("haze")
    for number in range(30):
        sample = patches[number]
        unchanged = torch.allclose(sample["input"], sample["target"], atol=0.5 / 255 + 1e-6)
        assert unchanged == (not sample["remove"][haze])


def test_a_curriculum_begins_with_mild_damage_and_ends_with_the_rest(photograph):
    pictures = [(photograph * 255).to(torch.uint8)]
    damage = {"clean": 0, "single": 1, "named": 0, "types": {"noise": 1}, "levels": {"heavy": 3}}
    course = {"levels": {"light": 2}, "samples": 1000}

    def shares(first, **more):
        patches = DamagedPatches(pictures, Data(folders=["x"], patch=16, damage=damage, **more), seed=0)
        noise = TYPES.index("noise")
        degrees = [int(patches[number]["degree"][noise]) for number in range(first, first + 60)]
        return [degrees.count(degree) / 60 for degree in range(3)]

    assert shares(0) == [0, 0, 1]
    light, medium, _ = shares(0, curriculum=course)
    assert light > 0.8
    assert medium == 0
    assert 0.25 < shares(470, curriculum=course)[2] < 0.75
    assert shares(1000, curriculum=course) == [0, 0, 1]
    # Once it is over, samples are those of a run without one.
    late = DamagedPatches(pictures, Data(folders=["x"], patch=16, damage=damage, curriculum=course), seed=0)[1000]
    same = DamagedPatches(pictures, Data(folders=["x"], patch=16, damage=damage), seed=0)[1000]
    assert torch.equal(late["input"], same["input"])


def test_processes_share_one_stream():
    def first(process, count):
        return list(itertools.islice(Stream(100, 4, process, 2), count))

    assert sorted(first(0, 8) + first(1, 8)) == list(range(100, 116))
    assert first(0, 4) == [100, 101, 102, 103]


def test_folders_without_usable_pictures(tmp_path, caplog):
    with pytest.raises(TrainingError, match="not there"):
        load_pictures([str(tmp_path / "none")], 16)
    with pytest.raises(TrainingError, match="no pictures"):
        load_pictures([str(tmp_path)], 16)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TrainingError, match="no usable"):
        load_pictures([str(tmp_path)], 16)
    assert "broken.png" in caplog.text


def test_a_file_s_mild_jpeg_goes_with_the_damage_and_stays_on_clean_pictures(photograph):
    """Stored pictures: a clean one is its own target, blocks and all; a damaged one's target is clean."""
    clean = (photograph * 255).to(torch.uint8)
    for share, same in ((1.0, True), (0.0, False)):
        damage = Damage(clean=share, single=1 - share, named=0, types={"noise": 1}, stored=1)
        plain = Damage(clean=share, single=1 - share, named=0, types={"noise": 1}, stored=0)
        stored, bare = (
            DamagedPatches([clean], Data(folders=["x"], patch=32, instruct=0, damage=d), seed=0)
            for d in (damage, plain)
        )
        changed = 0
        for number in range(8):
            one, other = stored[number], bare[number]
            assert torch.allclose(one["input"], one["target"], atol=0.5 / 255 + 1e-6) == same
            assert one["presence"][TYPES.index("jpeg")] == 0
            changed += not torch.equal(one["input"], other["input"])
        assert changed > 0
