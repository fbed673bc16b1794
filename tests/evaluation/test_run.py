import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from moir.base.errors import InvalidValueError, MissingExtraError, OutputExistsError, PictureNotFoundError
from moir.datasets import FolderMissingError
from moir.degrade.haze import Haze
from moir.evaluation.methods import TOLD, ModelMethod, Predictions
from moir.evaluation.output import Keeper, begin, finish
from moir.evaluation.protocols import protocol
from moir.evaluation.results import images_csv, results, write_results
from moir.evaluation.run import Options, evaluate
from moir.evaluation.settings import Sources, settings, synthetic
from moir.metrics import psnr
from moir.picture import from_tensor, read, write


@pytest.fixture
def pairs(pair_folders):
    damaged, clean = pair_folders
    (setting,) = settings("pairs", Sources(input=damaged, target=clean))
    return setting


@pytest.fixture
def noisy(clean_folder):
    return synthetic([clean_folder], "noise:gaussian=25", "noisy")


@pytest.fixture
def predicted(tmp_path, pair_folders):
    """Predictions in three forms: whole pictures as PNG, cut ones as floats, 16-bit TIFF in a folder of the setting."""
    folder = tmp_path / "predicted"
    for name in "abc":
        value = read(pair_folders[0] / f"{name}.png").rgb * 0.5 + read(pair_folders[1] / f"{name}.png").rgb * 0.5
        if name == "a":
            write(from_tensor(value), folder / "pairs" / "A.PNG".replace("PNG", "png"))
        elif name == "b":
            np.save(folder / "pairs" / "b.npy", protocol("moce_ir").cut(value).numpy())
        else:
            pixels = (value.permute(1, 2, 0).numpy() * 65535).round().astype(np.uint16)
            tifffile.imwrite(folder / "pairs" / "c.tif", pixels)
    return folder


def test_scores_are_those_of_the_protocol(pairs, dimming, pair_folders):
    (found,) = evaluate([dimming], [pairs])
    assert [s.image for s in found.images] == ["a", "b", "c"]
    assert dimming.calls == [("pairs", (3, 32, 48)), ("pairs", (3, 32, 48)), ("pairs", (3, 48, 48))]
    cut = protocol("moce_ir").cut
    values = []
    for score in found.images:
        x, y = (cut(read(folder / f"{score.image}.png").rgb)[None] for folder in pair_folders)
        assert score.metrics["input_psnr"] == pytest.approx(psnr(x, y).item(), abs=1e-9)
        values.append(psnr(x * 0.9, y).item())
        assert score.metrics["psnr"] == pytest.approx(values[-1], abs=1e-4)
    (summary,) = found.summaries
    assert (summary.n, summary.failed, summary.limited) == (3, 0, False)
    assert summary.means["psnr"] == pytest.approx(np.mean(values), abs=1e-4)
    low, high = summary.intervals["psnr"]
    assert min(values) <= low < high <= max(values)
    table = results([found])
    assert table["pairs"]["n"] == 3
    assert table["pairs"]["gain"] == pytest.approx(table["pairs"]["psnr"] - table["pairs"]["input_psnr"], abs=2e-6)


def test_jobs_and_several_methods_change_nothing(pairs, noisy, dimming, tmp_path):
    other = type(dimming)("darker", 0.5)
    one = evaluate([dimming], [pairs, noisy])
    many = evaluate([dimming, other], [pairs, noisy], Options(jobs=3))
    assert [s.metrics for s in one[0].images] == [s.metrics for s in many[0].images]
    assert [e.method for e in many] == ["dimming", "darker"]
    assert set(results(many)) == {"dimming", "darker"}
    assert len(images_csv(many).splitlines()) == 1 + 2 * 6


def test_limit_and_exclusion(pairs, noisy, dimming):
    (found,) = evaluate([dimming], [pairs, noisy], Options(limit=2, exclude=("noisy/a", "missing")))
    assert [(s.setting, s.image) for s in found.images] == [
        ("pairs", "a"), ("pairs", "b"), ("noisy", "b"), ("noisy", "c"),
    ]  # fmt: skip
    assert all(summary.limited for summary in found.summaries)
    assert found.provenance["limit"] == 2
    assert found.provenance["exclude"] == ["noisy/a", "missing"]


def test_what_fails_is_counted_and_the_rest_is_done(pairs, pair_folders):
    class Broken:
        name = "broken"

        def restore(self, x, *, setting):
            if x.shape[-1] == x.shape[-2]:
                raise ZeroDivisionError("no such thing")
            return x[:, 1:] if x[0, 0, 0] == first else x * math.nan

    first = protocol("moce_ir").cut(read(pair_folders[0] / "a.png").rgb)[0, 0, 0]
    (found,) = evaluate([Broken()], [pairs])
    errors = {s.image: s.error for s in found.images}
    assert errors["a"] == "the restored picture is 48x31 px; expected 48x32"
    assert errors["b"] == f"{3 * 32 * 48} of {3 * 32 * 48} values are NaN or infinite"
    assert errors["c"] == "unexpected ZeroDivisionError: no such thing"
    assert (found.summaries[0].n, found.summaries[0].failed, found.summaries[0].means) == (0, 3, {})
    assert "no such thing" in images_csv([found])


def test_damaged_and_unequal_pairs_are_counted(pair_folders, dimming, tmp_path):
    damaged, clean = pair_folders
    (damaged / "a.png").write_bytes((damaged / "a.png").read_bytes()[:200])
    write(from_tensor(read(clean / "b.png").rgb[:, :-2]), clean / "b.png", overwrite=True)
    (setting,) = settings("pairs", Sources(input=damaged, target=clean))
    (found,) = evaluate([dimming], [setting])
    a, b, c = found.images
    assert "a.png" in a.error
    assert "48x35" in b.error
    assert "48x33" in b.error
    assert c.error is None
    assert (found.summaries[0].n, found.summaries[0].failed) == (1, 2)


def test_a_missing_extra_stops_the_run(pairs):
    class Needy:
        name = "needy"

        def restore(self, x, *, setting):
            raise MissingExtraError("pip install it")

    with pytest.raises(MissingExtraError, match="pip install it"):
        evaluate([Needy()], [pairs], Options(jobs=2))


def test_predictions(predicted, pairs, noisy):
    method = Predictions(predicted)
    (found,) = evaluate([method], [pairs])
    assert [s.error for s in found.images] == [None] * 3
    assert all(s.seconds is None for s in found.images)
    for score in found.images:  # halfway between input and target: a quarter of the error
        assert score.metrics["psnr"] - score.metrics["input_psnr"] == pytest.approx(6.02, abs=0.1)
    read_files = found.provenance["files"]
    assert str(predicted / "pairs" / "b.npy") in read_files
    assert len(read_files) == 9
    assert all(len(digest) == 64 for digest in read_files.values())
    # Without a folder of its own, a setting's predictions lie in the folder itself.
    (again,) = evaluate([Predictions(predicted / "pairs", name="flat")], [pairs])
    assert [s.metrics for s in again.images] == [s.metrics for s in found.images]
    # With several settings that would be a trap: the same pictures for every noise level.
    (both,) = evaluate([Predictions(predicted / "pairs")], [pairs, noisy])
    assert (both.summaries[0].failed, both.summaries[1].failed) == (3, 3)
    assert "each needs a folder of its name" in both.images[0].error


def test_predictions_that_cannot_be_scored(predicted, pairs, pair_folders):
    place = predicted / "pairs"
    (place / "A.png").unlink()
    nan = np.full((32, 48, 3), 0.5, np.float32)
    nan[3, 4, 1] = math.nan
    np.save(place / "b.npy", nan)
    np.save(place / "c.npy", nan)
    (found,) = evaluate([Predictions(predicted)], [pairs])
    errors = {s.image: s.error for s in found.images}
    assert errors["a"] == f"no prediction a.* in {place}"
    assert errors["b"] == "1 of 4608 values are NaN or infinite"
    assert "several predictions of c" in errors["c"]
    (place / "c.npy").unlink()
    tifffile.imwrite(place / "c.tif", nan, photometric="rgb")
    write(from_tensor(torch.zeros(3, 9, 8)), place / "a.png")
    np.save(place / "b.npy", np.array([None]), allow_pickle=True)
    (found,) = evaluate([Predictions(predicted)], [pairs])
    errors = {s.image: s.error for s in found.images}
    assert errors["a"] == "the prediction is 8x9 px; expected 48x32 or 53x40"
    assert "no NumPy array" in errors["b"]
    assert "nan" in errors["c"]
    with pytest.raises(PictureNotFoundError, match="zzz"):
        Predictions(predicted).find("pairs", "zzz")


def test_folders_without_predictions(tmp_path):
    with pytest.raises(FolderMissingError, match="does not exist"):
        Predictions(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("x")
    with pytest.raises(FolderMissingError, match="holds no pictures"):
        Predictions(tmp_path / "empty")


def test_npy_types(predicted, tmp_path):
    method = Predictions(predicted)
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    expected = torch.from_numpy(values.transpose(2, 0, 1).copy()).float() / 255
    wide = values.astype(np.uint16) * 257
    for number, array in enumerate((values, values.transpose(2, 0, 1), wide, values / 255)):
        np.save(tmp_path / f"{number}.npy", array)
        assert torch.allclose(method.read(tmp_path / f"{number}.npy"), expected, atol=1e-7)
    np.save(tmp_path / "int.npy", values.astype(np.int32))
    with pytest.raises(InvalidValueError, match="int32"):
        method.read(tmp_path / "int.npy")


def test_the_same_predictions_give_the_same_bytes(predicted, pairs, tmp_path):
    texts = []
    for name in ("one", "two"):
        folder = tmp_path / name
        evaluations = evaluate([Predictions(predicted)], [pairs], Options(jobs=2 if name == "two" else 1))
        files = write_results(evaluations, folder)
        texts.append({path.name: path.read_bytes() for path in files})
    assert set(texts[0]) == {"results.json", "images.csv", "provenance.json"}
    assert texts[0] == texts[1]
    with pytest.raises(OutputExistsError):
        write_results(evaluations, folder)


def test_an_interrupted_run_goes_on_where_it_stopped(pairs, noisy, dimming, tmp_path):
    expected = evaluate([type(dimming)()], [pairs, noisy])

    def stop(step):
        if step.score.image == "b" and step.setting is noisy:
            raise KeyboardInterrupt

    journal = tmp_path / "out" / "records.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate([dimming], [pairs, noisy], journal=journal, on_step=stop)
    assert len(journal.read_text().splitlines()) == 5
    with journal.open("a") as file:
        file.write('{"key": "cut o')  # the machine was switched off
    before = len(dimming.calls)
    steps = []
    found = evaluate([dimming], [pairs, noisy], journal=journal, on_step=steps.append)
    assert len(dimming.calls) == before + 1
    assert [step.resumed for step in steps] == [True] * 5 + [False]
    assert images_csv(found) == images_csv(expected)
    assert results(found) == results(expected)
    again = evaluate([dimming], [pairs, noisy], journal=journal)
    assert len(dimming.calls) == before + 1
    assert results(again) == results(expected)


def test_scores_are_taken_only_where_nothing_changed(noisy, clean_folder, dimming, tmp_path):
    journal = tmp_path / "records.jsonl"

    def calls(settings, options=None):
        before = len(dimming.calls)
        evaluate([dimming], settings, options or Options(), journal=journal)
        return len(dimming.calls) - before

    assert calls([noisy]) == 3
    assert calls([noisy]) == 0
    assert calls([noisy], Options(seed=1)) == 3
    assert calls([noisy], Options(protocol=protocol("promptir"))) == 3
    assert calls([synthetic([clean_folder], "noise:gaussian=26", "noisy")]) == 3
    write(from_tensor(read(clean_folder / "a.png").rgb * 0.5), clean_folder / "a.png", overwrite=True)
    assert calls([noisy]) == 1


def test_scores_are_taken_again_where_damage_is_drawn_differently(clean_folder, dimming, tmp_path, monkeypatch):
    settings = [synthetic([clean_folder], "haze=medium", "hazy")]
    journal = tmp_path / "records.jsonl"
    evaluate([dimming], settings, Options(), journal=journal)
    sample = Haze.sample
    monkeypatch.setattr(Haze, "sample", lambda *given: replace(sample(*given), near=0.5))
    before = len(dimming.calls)
    evaluate([dimming], settings, Options(), journal=journal)
    assert len(dimming.calls) == before + 3


@pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")
def test_published_noise_goes_on_as_if_never_interrupted(clean_folder, tmp_path, dimming):
    place = tmp_path / "root" / "CBSD68" / "original_png"
    place.parent.mkdir(parents=True)
    shutil.copytree(clean_folder, place)
    found = [settings(f"cbsd68_s{n}", Sources(root=tmp_path / "root"))[0] for n in (15, 25)]
    options = Options(noise="published")
    whole = evaluate([dimming], found, options)

    def stop(step):
        if step.score.image == "b":
            raise KeyboardInterrupt

    journal = tmp_path / "records.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate([dimming], found, options, journal=journal, on_step=stop)
    assert results(evaluate([dimming], found, options, journal=journal)) == results(whole)
    # The papers' order matters; noise per picture has none.
    turned = evaluate([dimming], found[::-1], options)
    assert results(turned)["cbsd68_s25"]["psnr"] != results(whole)["cbsd68_s25"]["psnr"]
    one, two = evaluate([dimming], found), evaluate([dimming], found[::-1])
    assert results(one)["cbsd68_s25"] == results(two)["cbsd68_s25"]


def test_failures_are_tried_again(predicted, pairs, tmp_path):
    journal = tmp_path / "records.jsonl"
    late = (predicted / "pairs" / "b.npy").rename(tmp_path / "b.npy")
    (first,) = evaluate([Predictions(predicted)], [pairs], journal=journal)
    assert (first.summaries[0].n, first.summaries[0].failed) == (2, 1)
    late.rename(predicted / "pairs" / "b.npy")
    (second,) = evaluate([Predictions(predicted)], [pairs], journal=journal)
    assert (second.summaries[0].n, second.summaries[0].failed) == (3, 0)


def test_models(tiny_restorer, pairs, tmp_path):
    blind, told = ModelMethod(tiny_restorer, name="blind"), ModelMethod(tiny_restorer, name="told", task=TOLD)
    noisy = synthetic([pairs.files.pairs[0].target.parent], "noise=25")
    one, two = evaluate([blind, told], [pairs, noisy], Options(limit=1))
    expected = tiny_restorer(protocol("moce_ir").cut(read(pairs.files.pairs[0].input).rgb)).tensor
    target = protocol("moce_ir").cut(read(pairs.files.pairs[0].target).rgb)
    assert one.images[0].metrics == pytest.approx(
        {**protocol("moce_ir").scores(expected, target), "input_psnr": one.images[0].metrics["input_psnr"]}
    )
    assert one.images[1].metrics["psnr"] != two.images[1].metrics["psnr"]  # told that there is noise
    assert two.images[0].metrics["psnr"] == pytest.approx(
        two.images[0].metrics["input_psnr"]
    )  # told nothing: no change
    account = one.provenance["method"]
    assert account["options"]["precision"] == "float32"
    assert len(account["options"]["state_sha256"]) == 64
    cost = blind.cost((64, 48))
    assert cost.parameters == sum(p.numel() for p in tiny_restorer.engine.network.parameters())
    assert cost.size == (64, 48)


def test_the_folder_of_a_run(pairs, dimming, predicted, tmp_path):
    folder = tmp_path / "out"
    assert not begin(folder)
    methods = [dimming, Predictions(predicted)]
    keeper = Keeper(folder)
    evaluations = evaluate(methods, [pairs], journal=folder / "records.jsonl", on_step=keeper)
    assert begin(folder)  # interrupted now: the same command goes on
    finish(evaluations, methods, keeper, folder, overwrite=True)
    names = {path.name for path in folder.iterdir()}
    assert {"results.json", "images.csv", "provenance.json", "run.json", "table.md", "table.tex", "sheets"} <= names
    rows = list(keeper.rows("pairs", ["dimming", "predicted"]))
    assert [row.image for row in rows] == ["a", "b"]
    assert set(rows[0].outputs) == {"dimming", "predicted"}
    assert "dimming" in json.loads((folder / "run.json").read_text())["methods"]
    with pytest.raises(OutputExistsError, match="--resume"):
        begin(folder)
    assert begin(folder, resume=True)
    assert (folder / "records.jsonl").exists()
    assert begin(folder, overwrite=True)
    assert not (folder / "records.jsonl").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.md").write_text("my own")
    with pytest.raises(OutputExistsError, match=r"table.md"):
        begin(tmp_path / "mine")


def test_mistakes(pairs, dimming):
    with pytest.raises(InvalidValueError, match="nothing to score"):
        evaluate([], [pairs])
    with pytest.raises(InvalidValueError, match="two methods are named dimming"):
        evaluate([dimming, dimming], [pairs])
    with pytest.raises(InvalidValueError, match="limit 0"):
        Options(limit=0)
    (found,) = evaluate([dimming], [], missing=[("sots", "sots: not found")])
    assert results([found]) == {
        "sots": {"n": 0, "failed": 0, "protocol": "moce_ir", "source": "", "made": None, "intervals": {},
                 "error": "sots: not found"},
    }  # fmt: skip
