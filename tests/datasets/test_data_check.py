"""``moir data check`` on a half-filled root, by Python and by the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.cli.app import app
from moir.datasets import DATASETS, FolderMissingError, check


@pytest.fixture
def half(put, tmp_path) -> Path:
    """LOLv1 complete, CBSD68 short, Rain100L unpaired, SOTS half there, LHP of unknown count, the rest missing."""
    for n in range(15):
        put(f"llie/LOLv1/Test/input/{n}.png", n)
        put(f"llie/LOLv1/Test/target/{n}.png", 100 + n)
    for n in range(3):
        put(f"denoising/cBSD68/original_png/{n:04}.png", 200 + n)
    put("deraining/Rain100L/rainy/rain-001.png", 300)
    put("deraining/Rain100L/rainy/rain-002.png", 301)
    put("deraining/Rain100L/gt/norain-001.png", 302)
    put("dehazing/SOTS/outdoor/hazy/0001_0.8.jpg", 303)
    put("LHP-Rain/test/input/1.png", 304)
    put("LHP-Rain/test/target/1.png", 305)
    return tmp_path


EXPECTED = {"lolv1": "complete", "cbsd68": "wrong count", "rain100l": "unpaired", "sots": "incomplete", "lhp": "found"}


def test_statuses(half) -> None:
    report = check(half)
    assert {s.dataset.name: s.status for s in report.surveys if s.status != "missing"} == EXPECTED
    assert len(report.surveys) == len(DATASETS)
    assert not report.fine


def test_what_is_needed(half) -> None:
    assert check(half, need=["lolv1", "lhp"]).fine
    assert [s.dataset.name for s in check(half, need=["lolv1"]).surveys] == ["lolv1"]
    assert not check(half, need=["lolv1", "gopro"]).fine
    with pytest.raises(UnknownNameError, match="lolv1"):
        check(half, need=["lolv3"])
    with pytest.raises(InvalidValueError, match="quick"):
        check(half, leaks="some")  # type: ignore[arg-type]
    with pytest.raises(FolderMissingError, match="does not exist"):
        check(half, train=[half / "nowhere"])


def test_damage_is_found_when_asked(half, put) -> None:
    (half / "llie/LOLv1/Test/input/3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    put("llie/LOLv1/Test/target/5.png", size=(8, 8))
    assert check(half, need=["lolv1"]).fine
    (survey,) = check(half, need=["lolv1"], decode=True).surveys
    assert survey.status == "damaged"
    assert len(survey.problems) == 2
    assert "3.png" in survey.problems[0]
    assert "24x16" in survey.problems[1]
    assert "8x8" in survey.problems[1]


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, words)])


def test_json_is_one_object_per_line(half, put) -> None:
    put("denoising/BSD400/1.png", 200, size=(48, 32))
    result = _run(half, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    sets = {record["set"]: record for record in records if "set" in record}
    assert set(sets) == set(DATASETS)
    assert {name: sets[name]["status"] for name in EXPECTED} == EXPECTED
    assert (sets["lolv1"]["n"], sets["lolv1"]["expected"]) == (15, [15])
    assert sets["lolv1"]["input"] == "llie/LOLv1/Test/input"
    assert sets["sots"]["problems"][0].startswith("dehazing/SOTS/outdoor/hazy/ is there")
    assert sets["kodak24"]["status"] == "missing"
    assert "r0k.us" in sets["kodak24"]["get"]
    (leak,) = [record for record in records if "leak" in record]
    assert (leak["leak"], leak["train"], leak["test"], leak["n"]) == ("look-alike", "bsd400", "cbsd68", 1)
    assert leak["files"][0][:2] == ["denoising/BSD400/1.png", "denoising/cBSD68/original_png/0000.png"]
    assert result.exit_code == 1


def test_table_for_people(half) -> None:
    result = _run(half)
    assert result.exit_code == 1
    assert "wrong count" in result.stdout
    assert "3 pictures, published are 68" in result.stdout
    assert "kodak24: denoising/Kodak24/ (24)" in result.stdout
    assert "cdd11_* (11 sets)" in result.stdout


def test_exit_codes(half, tmp_path_factory) -> None:
    assert _run(half, "--need", "lolv1").exit_code == 0
    assert _run(half, "--need", "gopro").exit_code == 1
    empty = tmp_path_factory.mktemp("empty")
    assert _run(empty).exit_code == 1
    assert _run(half, "--leaks", "sometimes").exit_code == 2


def test_complete_root_is_fine(put, tmp_path) -> None:
    for n in range(5):
        put(f"Set5/HR/{n}.png", n)
    assert _run(tmp_path).exit_code == 0
