import hashlib
import json
import subprocess
import sys

import pytest
import torch

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.datasets import FolderMissingError, RootMissingError, UnpairedError
from moir.degrade import MIXES
from moir.evaluation.noise import NoiseSource
from moir.evaluation.protocols import protocol
from moir.evaluation.settings import SETTING_GROUPS, Sources, expand, fingerprint, settings, synthetic
from moir.picture import from_tensor, read, write

MOCE, PROMPT = protocol("moce_ir"), protocol("adaptir")


def samples(setting, chosen=MOCE, drawing="per-image", seed=0):
    noise = NoiseSource(drawing, seed)
    return {pair.name: setting.sample(pair, chosen, noise) for pair in setting.files.pairs}


@pytest.fixture
def cbsd68(tmp_path, clean_folder):
    """A data root with a small CBSD68."""
    place = tmp_path / "root" / "denoising" / "cBSD68" / "original_png"
    place.parent.mkdir(parents=True)
    clean_folder.rename(place)
    return tmp_path / "root"


@pytest.fixture
def classic(tmp_path, photograph):
    """A data root with a Set5 of one picture, four times larger than its input."""
    small = photograph[:, :20, :24]
    write(from_tensor(small), tmp_path / "root" / "Set5" / "LR_bicubic" / "X4" / "babyx4.png")
    large = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    write(from_tensor(large), tmp_path / "root" / "Set5" / "HR" / "baby.png")
    return tmp_path / "root"


@pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")
def test_noise_of_benchmarks(cbsd68):
    (setting,) = settings("cbsd68_s25", Sources(root=cbsd68))
    assert (setting.made, setting.types, setting.source) == ("noise:gaussian=25", ("noise",), "cbsd68")
    found = samples(setting)
    assert list(found) == ["a", "b", "c"]
    for sample in found.values():
        assert all(side % 16 == 0 for side in sample.target.shape[1:])  # cut before noise is added
        levels = sample.input * 255
        assert torch.allclose(levels, levels.round(), atol=1e-4)
        assert 15 < (levels - sample.target * 255).std() < 27
    assert found["a"].whole == (40, 53)
    # The first pictures do not change when others are left out, or come in another order.
    alone = setting.sample(setting.files.pairs[2], MOCE, NoiseSource())
    assert torch.equal(alone.input, found["c"].input)
    assert not torch.equal(found["c"].input, samples(setting, seed=1)["c"].input)
    published = samples(setting, drawing="published")
    again = NoiseSource("published")
    assert not torch.equal(setting.sample(setting.files.pairs[2], MOCE, again).input, published["c"].input)
    kept = samples(setting, PROMPT)["a"].input * 255
    assert not torch.allclose(kept, kept.round(), atol=1e-2)
    assert kept.shape == (3, 40, 53)


@pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")
def test_low_resolution(classic):
    for name in ("set5_sr_4", "set5_lr4_noise30", "set5_lr4_jpeg30"):
        (setting,) = settings(name, Sources(root=classic))
        sample = samples(setting)["babyx4"]
        assert setting.scale == 4
        assert sample.input.shape == (3, 20, 24)  # neither input nor target is cut
        assert sample.target.shape == (3, 80, 96)
        assert torch.equal(sample.input, sample.target[:, ::4, ::4]) == (name == "set5_sr_4")


def test_the_papers_settings_from_any_clean_folder(clean_folder):
    names = expand(["single", "single_out", "mixed", "mixed_out"])
    assert len(names) == 28
    assert len(SETTING_GROUPS["mixed"]) == len(MIXES) == 7
    sources = Sources(clean=(clean_folder,))
    for name in names:
        (setting,) = settings(name, sources)
        assert (setting.name, len(setting), setting.source) == (name, 3, "clean")
        assert setting.made is not None
        assert setting.made.endswith("=outside" if "_out" in name else "=inside")
    (setting,) = settings("mixed_ll_h_n_b_r", sources)
    assert setting.types == ("lowlight", "blur", "noise", "rain", "haze")
    for sample in samples(setting).values():
        assert [p["type"] for p in sample.damage] == list(setting.types)
        assert not torch.equal(sample.input, sample.target)


SOME = ("single_noise", "mixed_ll_h_n_b_s", "mixed_out_h_n_r", "single_jpeg")


def digests(folder, names):
    """SHA-256 of the inputs of some settings, by setting and picture."""
    found = {}
    for name in names:
        (setting,) = settings(name, Sources(clean=(folder,)))
        for pair in setting.files.pairs:
            values = setting.sample(pair, MOCE, NoiseSource()).input.numpy().tobytes()
            found[f"{name}/{pair.name}"] = hashlib.sha256(values).hexdigest()
    return found


def test_damage_is_the_same_to_the_bit_in_another_process_and_order(clean_folder):
    program = (
        "import runpy, sys, json, pathlib, torch; torch.set_num_threads(1)\n"
        "here = runpy.run_path(sys.argv[1])\n"
        "print(json.dumps(here['digests'](pathlib.Path(sys.argv[2]), here['SOME'])))\n"
    )
    command = [sys.executable, "-c", program, __file__, str(clean_folder)]
    elsewhere = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(set(elsewhere.values())) == len(SOME) * 3
    assert digests(clean_folder, SOME[::-1]) == elsewhere


def test_synthetic(clean_folder, tmp_path):
    sources = Sources(clean=(clean_folder,), specs=("rain=heavy, noise=25", "clean"))
    rain, clean = settings("synthetic", sources)
    assert (rain.name, rain.types) == ("rain=heavy, noise=25", ("noise", "rain"))
    assert all(torch.equal(s.input, s.target) for s in samples(clean).values())
    assert fingerprint(rain) != fingerprint(clean)
    (alone,) = settings("synthetic", Sources(clean=(clean_folder,), specs=("blur=2",)))
    assert alone.name == "synthetic"
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((clean_folder / "a.png").read_bytes())
    both = synthetic([clean_folder, other], "noise=25")
    assert [pair.name for pair in both.files.pairs] == ["clean/a", "clean/b", "clean/c", "other/a"]
    (other / "A.bmp").write_bytes(b"x")
    (other / "a.bmp").write_bytes(b"x")
    with pytest.raises(UnpairedError, match="one name, a"):
        synthetic([other], "noise=25")


def test_pairs(pair_folders):
    damaged, clean = pair_folders
    (setting,) = settings("pairs", Sources(input=damaged, target=clean))
    assert setting.made is None
    found = samples(setting, protocol("restormer_y"))
    assert torch.equal(found["a"].input, read(damaged / "a.png").rgb)


def test_names():
    assert expand(["aio3", " cbsd68_s25 , pairs"]) == [*SETTING_GROUPS["aio3"], "pairs"]
    with pytest.raises(UnknownNameError, match="'mixed_out'"):
        expand(["mixd_out"])
    with pytest.raises(UnknownNameError, match="benchmarks on it: cbsd68_s15"):
        expand(["cbsd68"])
    with pytest.raises(InvalidValueError, match="no benchmark"):
        expand([""])


def test_what_is_missing_is_said(tmp_path, clean_folder):
    with pytest.raises(RootMissingError, match="--data"):
        settings("sots", Sources())
    with pytest.raises(FolderMissingError, match=r"rain100l: .*deraining/Rain100L"):
        settings("rain100l", Sources(root=tmp_path))
    with pytest.raises(FolderMissingError, match=r"mixed_h_r: .*--clean DIR"):
        settings("mixed_h_r", Sources(root=tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, why in ((empty, "holds no pictures"), (tmp_path / "no", "does not exist")):
        with pytest.raises(FolderMissingError, match=why):
            synthetic([folder], "noise=25")
    with pytest.raises(UnknownNameError, match="'rain'"):
        synthetic([clean_folder], "rian=heavy")
    with pytest.raises(InvalidValueError, match="--with"):
        settings("synthetic", Sources(clean=(clean_folder,)))
    with pytest.raises(InvalidValueError, match="--input"):
        settings("pairs", Sources(input=empty))
