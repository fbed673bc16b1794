"""Each pairing rule in its published layout, by names alone (the files are empty)."""

from pathlib import Path

import pytest

from moir.datasets import FolderMissingError, UnpairedError, UnpairedWarning, WrongCountWarning, find
from moir.datasets.folders import Tree
from moir.datasets.survey import survey
from moir.datasets.table import DATASETS

LAYOUTS = {
    "MoCE-IR rain": ("rain100l", "deraining/Rain100L", {"rainy/rain-001.png": "gt/norain-001.png"}),
    "Rain100H by number": ("rain100h_first25", "deraining/Rain100H_first25", {"rainy/7.png": "gt/7.png"}),
    "AdaptIR rain": ("rain100h", "Rain100H", {"rainy/rain-003.png": "norain-003.png"}),
    "one folder": ("raintrainl", "RainTrainL", {"rain-12.png": "norain-12.png", "rain-2.png": "norain-2.png"}),
    "PKU archive": (
        "rain200h", "Rain200H/rain_data_test_Heavy", {"rain/X2/norain-1x2.png": "norain-1.png"},
    ),
    "Restormer test set": ("test1200", "Deraining/Datasets/test/Test1200", {"input/8.png": "target/8.png"}),
    "Rain14000": (
        "test2800", "rainy_image_dataset",
        {f"testing/rainy_image/901_{k}.jpg": "testing/ground_truth/901.jpg" for k in (1, 2, 14)},
    ),
    "Rain14000 of Restormer": ("test2800", "Test2800", {"input/901_1.jpg": "target/901_1.jpg"}),
    "SOTS": (
        "sots", "dehazing/SOTS/outdoor",
        {"hazy/0001_0.8_0.2.jpg": "gt/0001.png", "hazy/0001_0.9_0.1.jpg": "gt/0001.png",
         "hazy/0010_1_0.16.jpg": "gt/0010.png"},
    ),
    "OTS": (
        "ots", "dehazing/RESIDE",
        {"part1/0005_0.8_0.04.jpg": "clear/0005.jpg", "part4/0005_1_0.2.jpg": "clear/0005.jpg"},
    ),
    "GoPro": (
        "gopro", "GoPro",
        {"test/GOPR0384_11_00/blur/000001.png": "test/GOPR0384_11_00/sharp/000001.png",
         "test/GOPR0385_11_01/blur/000001.png": "test/GOPR0385_11_01/sharp/000001.png"},
    ),
    "GoPro of MoCE-IR": ("gopro", "deblurring/GoPro", {"test/input/a-1.png": "test/target/a-1.png"}),
    "GoPro crops": (
        "gopro_train_crops", "deblurring/GoPro/crop/train", {"input_crops/a-s001.png": "target_crops/a-s001.png"},
    ),
    "LOLv1": ("lolv1", "llie/LOLv1/Test", {"input/1.png": "target/1.png"}),
    "LOLv1 as published": ("lolv1_train", "LOLdataset/our485", {"low/10.png": "high/10.png"}),
    "LOLv2": ("lolv2_real", "LOL-v2/Real_captured/Test", {"Low/low00690.png": "Normal/normal00690.png"}),
    "Snow100K as unpacked": (
        "snow100k_l", "media/jdway/GameSSD/overlapping/test/Snow100K-L", {"synthetic/b_01.jpg": "gt/b_01.jpg"},
    ),
    "CDD11": ("cdd11_low_haze_rain", "cdd11/test", {"low_haze_rain/00001.png": "clear/00001.png"}),
    "DIV2K": ("div2k_train_x4", "DIV2K", {"DIV2K_train_LR_bicubic/X4/0001x4.png": "DIV2K_train_HR/0001.png"}),
    "Flickr2K": ("flickr2k_x2", "Flickr2K", {"Flickr2K_LR_bicubic/X2/000001x2.png": "Flickr2K_HR/000001.png"}),
    "Set5": ("set5_x3", "ARTSR/Set5", {"LR_bicubic/X3/babyx3.png": "HR/baby.png"}),
    "Manga109": ("manga109_x4", "ARTSR/Manga109", {"LR_bicubic/X4/ARMS_LRBI_x4.png": "HR/ARMS.png"}),
    "RealSnow": ("realsnow", "RealSnow/test", {"input/a.png": "gt/a.png"}),
    "LHP": ("lhp", "LHP-Rain/test", {"input/a.png": "target/a.png"}),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_published_layouts(case: str, touch) -> None:
    name, place, expected = LAYOUTS[case]
    root = touch(*(f"{place}/{part}" for pair in expected.items() for part in pair))
    found = survey(DATASETS[name], Tree(root))
    below = root / place
    assert {str(i.relative_to(below)): str(t.relative_to(below)) for _, i, t in found.pairs} == expected
    assert not found.unpaired
    assert found.status in ("found", "wrong count")
    assert len({pair[0] for pair in found.pairs}) == len(expected)


def test_clean_sets(touch) -> None:
    root = touch("denoising/cBSD68/original_png/0000.png", "WED/1.bmp", "BSR/BSDS500/data/images/val/8.jpg",
                 "BSR/BSDS500/data/images/test/9.jpg", "BSR/BSDS500/data/images/test/Thumbs.db")  # fmt: skip
    tree = Tree(root)
    assert [p[0] for p in survey(DATASETS["bsds500"], tree).pairs] == ["9", "8"]
    assert survey(DATASETS["cbsd68"], tree).pairs == [("0000", None, root / "denoising/cBSD68/original_png/0000.png")]
    assert survey(DATASETS["wed"], tree).n == 1


def test_case_of_folders_and_extensions(touch) -> None:
    root = touch("Deraining/rain100l/Rainy/RAIN-001.PNG", "Deraining/rain100l/GT/norain-001.bmp",
                 "Deraining/rain100l/GT/._norain-001.bmp")  # fmt: skip
    assert survey(DATASETS["rain100l"], Tree(root)).n == 1


def test_the_complete_layout_wins(touch) -> None:
    root = touch("llie/LOLv1/Test/input/1.png", "llie/LOLv1/Test/target/1.png",
                 *(f"LOL/eval15/{side}/{n}.png" for side in ("low", "high") for n in range(15)))  # fmt: skip
    found = survey(DATASETS["lolv1"], Tree(root))
    assert (found.status, str(found.layout)) == ("complete", "LOL/eval15/{low,high}/")


def test_find_warns_of_wrong_counts(touch) -> None:
    root = touch("llie/LOLv1/Test/input/1.png", "llie/LOLv1/Test/target/1.png")
    with pytest.warns(WrongCountWarning, match="1 pairs, published are 15"):
        found = find("lolv1", root)
    assert [type(w) for w in found.warnings] == [WrongCountWarning]
    assert len(found) == 1


def test_find_says_which_pictures_have_no_partner(touch) -> None:
    place = "llie/LOLv1/Test"
    root = touch(f"{place}/input/1.png", f"{place}/target/1.png", f"{place}/input/2.png", f"{place}/target/3.png")
    with pytest.raises(UnpairedError, match=r"1 without a target: 2\.png.*1 targets without an input: 3\.png.*daoo"):
        find("lolv1", root)
    with pytest.warns(UnpairedWarning, match=r"2\.png"):
        assert [p.name for p in find("lolv1", root, strict=False).pairs] == ["1"]


def test_duplicates_are_told(touch) -> None:
    root = touch("Rain100L/rainy/rain-001.png", "Rain100L/rainy/rain-1.png", "Rain100L/gt/norain-1.png")
    with pytest.raises(UnpairedError, match=r"1 with the name of another: rain-1\.png"):
        find("rain100l", root)


def test_a_subset_of_the_haze_is_a_wrong_count_only(touch) -> None:
    root = touch("OTS/hazy/1_0.8.jpg", "OTS/clear/1.jpg", "OTS/clear/2.jpg")
    with pytest.warns(WrongCountWarning):
        assert len(find("ots", root)) == 1


def test_missing_halves_and_sets(touch) -> None:
    root = touch("deraining/Rain100L/rainy/rain-001.png")
    with pytest.raises(FolderMissingError, match=r"Rain100L/rainy/ is there, but deraining/Rain100L/gt/ is missing"):
        find("rain100l", root)
    (Path(root) / "deraining/Rain100L/gt").mkdir()
    with pytest.raises(FolderMissingError, match=r"gt/ holds no pictures; expected deraining/Rain100L/{rainy,gt}/"):
        find("rain100l", root)
    with pytest.raises(FolderMissingError, match=r"expected dehazing/SOTS/outdoor/{hazy,gt}/ .*reside-dehaze"):
        find("sots", root)
