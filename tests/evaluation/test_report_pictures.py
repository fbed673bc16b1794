"""Plots, picture sheets and the folder of reports, from made-up records. No number here was measured."""

import builtins

import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import (
    InvalidValueError,
    MissingExtraError,
    OutputConflictError,
    OutputExistsError,
    TensorShapeError,
)
from moir.evaluation.records import Evaluation, ImageScore, Summary
from moir.evaluation.report import SheetRow, draw_setting, draw_sheet, write_reports
from moir.evaluation.report.sheets import _LABEL, _TITLE, CELL, _heat


def made_up(method="a", settings=("sots",), psnr=20.0, with_input=True):
    images = []
    for setting in settings:
        for i in range(4):
            metrics = {"psnr": psnr + i} | ({"input_psnr": 15.0 + i} if with_input else {})
            images.append(ImageScore(setting, f"{i}.png", 8, 8, metrics))
    summaries = tuple(Summary(setting, 4, 0, {"psnr": psnr + 1.5}, {}) for setting in settings)
    return Evaluation(method, "moce_ir", summaries, tuple(images), None, {})


def sheet_row(size=(40, 60), output=0.5, target=0.25, image="0.png"):
    return SheetRow(
        image, torch.full((3, *size), 0.75), {"a": torch.full((3, *size), output)}, torch.full((3, *size), target)
    )


def without_matplotlib(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_all_reports_are_written_and_twice_the_same(tmp_path):
    pytest.importorskip("matplotlib")
    evaluations = [made_up("a", ("sots", "rain100l")), made_up("b $x$", ("sots",), 22.0)]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        written = write_reports(evaluations, folder, pictures=lambda s: [sheet_row()] if s == "sots" else [])
        names = [path.relative_to(folder).as_posix() for path in written]
        assert names == ["table.md", "table.tex", "sheets/sots.jpg", "plots/sots.png", "plots/rain100l.png"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_nothing_is_overwritten_unless_asked(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "sots.png").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"sots\.png"):
        write_reports([made_up()], tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["sots.png"]
    pytest.importorskip("matplotlib")
    write_reports([made_up()], tmp_path, overwrite=True)
    with Image.open(tmp_path / "plots" / "sots.png") as image:
        assert image.format == "PNG"


def test_without_matplotlib_the_rest_is_written(tmp_path, monkeypatch, caplog):
    without_matplotlib(monkeypatch)
    written = write_reports([made_up()], tmp_path, pictures=lambda _: [sheet_row()])
    assert [path.name for path in written] == ["table.md", "table.tex", "sots.jpg"]
    assert "pip install 'moir[train]'" in caplog.text
    with pytest.raises(MissingExtraError):
        draw_setting([made_up()], "sots", tmp_path / "x.png")


def test_settings_that_share_a_file_name_are_refused(tmp_path):
    with pytest.raises(OutputConflictError, match="a/b"):
        write_reports([made_up(settings=("a/b", "a b"))], tmp_path)
    with pytest.raises(InvalidValueError):
        write_reports([], tmp_path)


@pytest.mark.parametrize("with_input", [True, False])
def test_a_plot_holds_ink_for_every_method(tmp_path, with_input):
    pytest.importorskip("matplotlib")
    many = [made_up(f"m{i}", psnr=20.0 + i, with_input=with_input) for i in range(3)]
    sizes = []
    for evaluations in (many[:1], many):
        with Image.open(draw_setting(evaluations, "sots", tmp_path / f"{len(evaluations)}.png")) as image:
            sizes.append(image.size)
            assert np.asarray(image.convert("L")).min() < 100
    assert sizes[1][1] > sizes[0][1]


def test_nothing_to_plot(tmp_path, caplog):
    broken = Evaluation(
        "a", "moce_ir", (Summary("sots", 0, 1, {}, {}),), (ImageScore("sots", "x", 8, 8, error="!"),), None, {}
    )
    with pytest.raises(InvalidValueError, match="sots"):
        draw_setting([broken], "sots", tmp_path / "x.png")
    assert [path.name for path in write_reports([broken], tmp_path / "out")] == ["table.md", "table.tex"]
    assert "sots" in caplog.text


def test_a_sheet_shows_pictures_and_errors_in_their_places(tmp_path):
    path = draw_sheet("sots", [sheet_row((40, 160))], tmp_path / "sheet.png", evaluations=[made_up()])
    with Image.open(path) as image:
        pixels = np.asarray(image)
    top = _TITLE + 8 + _LABEL + 20
    places = [8 + 80 + (160 + 8) * i for i in range(3)]
    assert [int(pixels[top, x, 0]) for x in places] == [191, 128, 64]
    # Errors of 0.5 (input) and 0.25 (output) on the scale 0 to 0.5, whose bar stands under the target.
    below = top + 40 + 8
    assert [tuple(pixels[below, x]) for x in places[:2]] == [tuple(_heat(np.array(v))) for v in (1.0, 0.5)]


def test_large_pictures_show_their_centre_and_small_inputs_are_enlarged(tmp_path):
    target = torch.zeros(3, 600, 500)
    target[:, 300 - CELL // 2 : 300 + CELL // 2, 250 - CELL // 2 : 250 + CELL // 2] = 1
    row = SheetRow("0.png", torch.zeros(3, 150, 125), {}, target)
    with Image.open(draw_sheet("x", [row], tmp_path / "sheet.png")) as image:
        pixels = np.asarray(image)
    start = (_TITLE + 8 + _LABEL, 8 + CELL + 8)
    assert (pixels[start[0] : start[0] + CELL, start[1] : start[1] + CELL] == 255).all()
    assert (pixels[start[0] : start[0] + CELL, 8 : 8 + CELL] == 0).all()


def test_a_broken_prediction_is_shown_black_and_a_wrong_size_refused(tmp_path):
    broken = SheetRow("0.png", None, {"a": torch.full((3, 40, 160), float("nan"))}, torch.ones(3, 40, 160))
    with Image.open(draw_sheet("x", [broken], tmp_path / "sheet.png")) as image:
        assert image.getpixel((80, _TITLE + 8 + _LABEL + 20)) == (0, 0, 0)
    wrong = SheetRow("0.png", None, {"a": torch.zeros(3, 40, 41)}, torch.zeros(3, 40, 40))
    with pytest.raises(TensorShapeError, match="41"):
        draw_sheet("x", [wrong], tmp_path / "other.png")
    with pytest.raises(InvalidValueError, match="no pictures"):
        draw_sheet("x", [], tmp_path / "other.png")
    with pytest.raises(InvalidValueError, match="webp"):
        draw_sheet("x", [broken], tmp_path / "other.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
