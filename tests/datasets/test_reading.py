"""Reading pairs: lazily, with errors that say what is wrong; and any two folders."""

import pytest
import torch

from moir.base.errors import UnknownNameError
from moir.datasets import (
    DamagedPictureError,
    DatasetError,
    FolderMissingError,
    PairSizeError,
    RootMissingError,
    UnpairedError,
    UnpairedWarning,
    find,
    pairs,
)

pytestmark = pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")


def test_pairs_are_decoded_on_demand(put, tmp_path) -> None:
    put("LOLv1/Test/input/1.png", 1)
    put("LOLv1/Test/target/1.png", 2)
    (tmp_path / "LOLv1/Test/input/2.png").write_bytes(b"")
    put("LOLv1/Test/target/2.png", 2)
    found = find("lolv1", tmp_path)
    name, source, target = found[0]
    assert name == "1"
    assert source is not None
    assert source.shape == target.shape == (3, 16, 24)
    assert source.dtype == torch.float32
    assert 0 <= source.min() < source.max() <= 1
    assert not torch.equal(source, target)
    with pytest.raises(DamagedPictureError, match=r"lolv1: .*2\.png"):
        list(found)


def test_clean_sets_have_no_input(put, tmp_path) -> None:
    put("CBSD68/0001.png")
    found = find("cbsd68_s25", tmp_path)
    assert found.synthesis is not None
    assert found.synthesis.spec == "noise:gaussian=25"
    example = next(iter(found))
    assert example.input is None
    assert example.target.shape == (3, 16, 24)
    assert find("cbsd68", tmp_path).synthesis is None


def test_sizes_that_differ(put, tmp_path) -> None:
    put("LOLv1/Test/input/1.png", size=(24, 16))
    put("LOLv1/Test/target/1.png", size=(25, 16))
    with pytest.raises(PairSizeError, match=r"input/1\.png is 24x16 .*target/1\.png is 25x16"):
        find("lolv1", tmp_path)[0]


def test_low_resolution(put, tmp_path) -> None:
    put("Set5/LR_bicubic/X4/babyx4.png", size=(6, 4))
    put("Set5/HR/baby.png", size=(26, 19))  # what does not make a whole pixel is cut off
    found = find("set5_lr4_noise30", tmp_path)
    assert found.scale == 4
    assert found.synthesis is not None
    _, source, target = found[0]
    assert source is not None
    assert (source.shape, target.shape) == ((3, 4, 6), (3, 16, 24))
    put("Set5/HR/baby.png", size=(28, 19))
    with pytest.raises(PairSizeError, match="4 times larger"):
        found[0]


def test_names(tmp_path) -> None:
    with pytest.raises(UnknownNameError, match="rain100l"):
        find("rain100", tmp_path)
    with pytest.raises(DatasetError, match="sots, rain100l"):
        find("aio3", tmp_path)
    with pytest.raises(RootMissingError, match="does not exist"):
        find("sots", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RootMissingError, match="is a file"):
        find("sots", tmp_path / "file")


def test_any_two_folders(put, tmp_path) -> None:
    put("in/A.JPG", 1)
    put("in/b.png", 2)
    put("out/a.png", 1)
    put("out/B.bmp", 2)
    (tmp_path / "in/notes.txt").touch()
    found = pairs(tmp_path / "in", tmp_path / "out")
    assert [(p.name, p.target.name) for p in found.pairs] == [("A", "a.png"), ("b", "B.bmp")]
    assert len(list(found)) == 2


def test_two_folders_that_do_not_fit(touch) -> None:
    root = touch("in/a.png", "in/b.png", "in/a.jpg", "out/a.png", "out/c.png", "other/z.png")
    with pytest.raises(
        UnpairedError, match=r"1 without a target.*b\.png; 1 without an input.*c\.png; 1 with the name.*a\.png"
    ):
        pairs(root / "in", root / "out")
    with pytest.warns(UnpairedWarning, match="left out"):
        found = pairs(root / "in", root / "out", strict=False)
    assert [p.name for p in found.pairs] == ["a"]
    with pytest.raises(UnpairedError):
        pairs(root / "in", root / "other", strict=False)
    (root / "empty").mkdir()
    with pytest.raises(FolderMissingError, match=r"target folder .*empty holds no pictures"):
        pairs(root / "in", root / "empty")
    with pytest.raises(FolderMissingError, match="does not exist"):
        pairs(root / "nowhere", root / "out")
