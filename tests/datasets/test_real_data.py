"""The pictures that this project measures on, found through the table."""

import os
from pathlib import Path

import pytest

from moir.datasets import check, find


@pytest.fixture(scope="module")
def root() -> Path:
    data = os.environ.get("MOIR_DATA")
    if not data or not (Path(data) / "test").is_dir():
        pytest.skip("MOIR_DATA is unset or has no folder test/")
    return Path(data) / "test"


@pytest.mark.filterwarnings("error")
def test_sets(root) -> None:
    assert len(find("cbsd68_s25", root)) == 68
    assert len(find("live1_q10", root)) == 29
    assert len(find("rain100h_first25", root)) == 25
    assert find("cbsd68", root)[0].target.shape[0] == 3


def test_rain_pairs_are_of_equal_size_and_belong_together(root) -> None:
    for _, rainy, clean in find("rain100h_first25", root):
        assert rainy is not None
        assert rainy.shape == clean.shape
        assert (clean - rainy > 0.02).float().mean() < 0.01  # rain only adds light


def test_rain100h_shows_scenes_of_cbsd68(root) -> None:
    report = check(root, need=["rain100h_first25"], train=[root / "denoising/cBSD68/original_png"])
    (leak,) = report.leaks
    pairs = {(train.name, test.name) for train, test, _ in leak.files}
    # Looked at: these are the same scenes, a row and a column trimmed off (3.png and 4.png are one scene twice).
    scenes = {"3.png": "0037", "4.png": "0037", "18.png": "0038", "19.png": "0004", "21.png": "0039", "22.png": "0040"}
    assert pairs == {(f"{clean}.png", rain) for rain, clean in scenes.items()}
