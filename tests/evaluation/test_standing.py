import importlib
import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch

import moir
from moir.checkpoints import Card
from moir.datasets import DatasetError
from moir.evaluation.methods import ModelMethod
from moir.evaluation.noise import NoiseSource
from moir.evaluation.protocols import PROTOCOLS
from moir.evaluation.run import Options, chosen
from moir.models import create_model
from moir.picture import from_tensor, write

QUALITY = Path(__file__).parents[2] / "benchmarks" / "quality"


@pytest.fixture(scope="module")
def standing():
    """The script, imported as it is when it is run; it turns threads down, which is put back."""
    threads, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(QUALITY)
        yield importlib.import_module("standing")
    torch.set_num_threads(threads)
    cv2.setNumThreads(of_opencv)
    for name in ("standing", "sections"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def restorer():
    torch.manual_seed(0)
    return moir.Restorer(create_model("test_compact").eval(), "test_compact", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photograph):
    """One or two tiny pictures of every set, in the layouts of the data root."""
    folder = tmp_path_factory.mktemp("data")
    tile = photograph[:, 60:92, 100:148]
    for name in ("denoising/cBSD68/original_png/a", "live1/b", "cid22_validation/c", "gb82/d"):
        write(from_tensor(tile), folder / f"{name}.png")
    write(from_tensor(1 - tile), folder / "gb82" / "haze-lossless.png")
    write(from_tensor(tile), folder / "deraining/Rain100H_first25/gt/norain-1.png")
    write(from_tensor((tile + 0.1).clamp(0, 1)), folder / "deraining/Rain100H_first25/rainy/rain-1.png")
    return folder


@pytest.fixture
def root(whole, tmp_path):
    """A copy, to be damaged."""
    return shutil.copytree(whole, tmp_path / "data")


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return tmp_path_factory.mktemp("journal") / "scores.jsonl"


@pytest.fixture(scope="module")
def measured(standing, whole, restorer, journal):
    return standing.measure(ModelMethod(restorer), whole, journal, limit=2)


def test_every_cell_is_there_with_its_n(standing, measured):
    assert not measured.failures
    text = standing.text(measured, "some command")
    lines = [line for line in text.split("## Cost")[0].splitlines() if line.startswith("|")]
    cells = [cell for line in lines for cell in line.split("|")[3:-1] if cell.strip("-: ")]
    figures = [cell for cell in cells if "n=" in cell]
    rows = sum(len(section.settings) for section, _ in measured.tables)
    methods = sum(len(section.settings) * len(found) for section, found in measured.tables)
    assert len(figures) == rows + methods
    assert "some command" in text
    assert "nan" not in text.lower()
    for section, _ in measured.tables:
        assert f"## {section.title}" in text
        assert all(setting.name in text for setting in section.settings)


def test_best_is_bold(standing, measured):
    text = standing.text(measured, "")
    for section, found in measured.tables:
        for number, setting in enumerate(section.settings):
            best = max(f"{e.summaries[number].means['psnr']:.2f}" for e in found)
            line = next(line for line in text.splitlines() if line.startswith(f"| {setting.name} "))
            if len(found) == 1:
                assert f"**{best}**" in line
            else:
                values = [float(f"{e.summaries[number].means['psnr']:.2f}") for e in found]
                assert f"**{max(values):.2f}**" in line


def test_what_is_no_clean_reference_is_left_out(standing, measured):
    for _, found in measured.tables:
        for evaluation in found:
            assert not any("haze-lossless" in score.image for score in evaluation.images)
    assert "haze-lossless" in standing.text(measured, "")


def test_a_second_run_scores_nothing_again(standing, measured, whole, restorer, journal, monkeypatch):
    def refuse(self, x, *, setting):
        raise AssertionError("was restored again")

    monkeypatch.setattr(ModelMethod, "restore", refuse)
    monkeypatch.setattr(ModelMethod, "cost", lambda self, size: None)
    again = standing.measure(ModelMethod(restorer), whole, journal, limit=2)
    assert [e for _, found in again.tables for e in found] == [e for _, found in measured.tables for e in found]


def test_card_rows(standing, measured, tmp_path):
    rows = standing.card_metrics(measured, "command")
    names = [row["benchmark"] for row in rows]
    assert len(set(names)) == len(names)
    assert {"cbsd68_s25", "live1_q10", "rain100h_first25", "clean", "rain=heavy", "H-R=outside"} <= set(names)
    assert {row["source"] for row in rows} == {"benchmark", "other code", "moir degrade"}
    by_name = {row["benchmark"]: row for row in rows}
    assert by_name["clean"]["gain"] is None
    assert by_name["clean"]["psnr_input"] == 100
    assert by_name["rain=inside"]["n"] == 2  # one of each folder of photographs
    row = by_name["cbsd68_s25"]
    assert row["gain"] == pytest.approx(row["psnr"] - row["psnr_input"], abs=0.011)
    Card("name", "model", metrics=rows).write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json").metrics == rows


@pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")
def test_other_code_makes_the_same_damage_again(standing, whole):
    from sections import OtherCode, sections

    options = Options(PROTOCOLS["moce_ir"])
    others = [s for section in sections(whole) for s in section.settings if isinstance(s, OtherCode)]
    assert len(others) == 8
    for setting in others:
        pair = chosen(setting, options)[0]
        first, second = (setting.sample(pair, options.protocol, NoiseSource()) for _ in range(2))
        assert torch.equal(first.input, second.input)
        assert torch.equal(first.input, first.target) == (setting.name == "clean")
        levels = first.input * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_limits_are_refused(standing, capsys):
    with pytest.raises(SystemExit):
        standing.main(["--data", "somewhere", "--limit", "3"])
    assert "all pictures" in capsys.readouterr().err


def test_sets_that_are_not_whole_are_refused(standing, root, tmp_path, capsys):
    output = tmp_path / "table.md"
    code = standing.main(["--data", str(root), "--output", str(output), "--journal", str(tmp_path / "journal")])
    assert code == 1
    assert "published are 20" in capsys.readouterr().err
    assert not output.exists()


def test_a_missing_set_is_named(standing, root, restorer):
    (root / "live1" / "b.png").unlink()
    (root / "live1").rmdir()
    with pytest.raises(DatasetError, match="live1"):
        standing.measure(ModelMethod(restorer), root, None, limit=1)


def test_pictures_that_fail_stop_the_table(standing, root, restorer, tmp_path, monkeypatch):
    (root / "live1" / "b.png").write_bytes(b"no picture")
    every = standing.sections
    monkeypatch.setattr(standing, "sections", lambda root: [s for s in every(root) if s.title == "JPEG"])
    broken = standing.measure(ModelMethod(restorer), root, None, limit=1)
    assert {score.setting for score in broken.failures} >= {"live1_q10", "live1_q40"}
    monkeypatch.setattr(standing, "measure", lambda *_, **__: broken)
    monkeypatch.setattr(standing, "ModelMethod", lambda model: ModelMethod(restorer))
    assert standing.main(["--data", str(root), "--output", str(tmp_path / "table.md")]) == 1
    assert not (tmp_path / "table.md").exists()
