import json

import numpy as np
import pytest
import torch

from moir.base.errors import MoirError, OutputExistsError
from moir.cli.app import app
from moir.picture import from_tensor, read, write


@pytest.fixture
def folders(tmp_path, photograph):
    """Clean pictures, damaged ones, and predictions halfway between, in ``clean``, ``damaged`` and ``predicted``."""
    for name, left in (("a", 0), ("b", 60), ("c", 120)):
        clean = photograph[:, :40, left : left + 48]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(left))
        damaged = (clean + 0.1 * noise).clamp(0, 1)
        write(from_tensor(clean), tmp_path / "clean" / f"{name}.png")
        write(from_tensor(damaged), tmp_path / "damaged" / f"{name}.png")
        write(from_tensor((clean + damaged) / 2), tmp_path / "predicted" / f"{name}.png")
    return tmp_path


PAIRS = ("--benchmark", "pairs", "--input", "damaged", "--target", "clean", "--no-cost")


def test_models_baselines_and_predictions_in_one_table(moir_command, folders, tiny_model):
    outcome = moir_command(
        "evaluate", *PAIRS, "--model", tiny_model, "--baseline", "identity", "--predictions", "predicted",
        "--name", "OtherNet", "--exclude", "pairs/b", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    results = folders / "evaluation"
    table = json.loads((results / "results.json").read_text())
    assert list(table) == ["tiny", "identity", "OtherNet"]
    identity, other = table["identity"]["pairs"], table["OtherNet"]["pairs"]
    assert identity["psnr"] == identity["input_psnr"]
    assert other["psnr"] == pytest.approx(identity["psnr"] + 6, abs=0.3)  # half the error
    assert other["n"] == 2
    assert [r["method"] for r in outcome.records] == list(table)
    assert outcome.records[2]["psnr"] == other["psnr"]
    lines = (results / "images.csv").read_text().splitlines()
    assert lines[0] == "method,protocol,setting,image,width,height,psnr,ssim,input_psnr,error"
    assert len(lines) == 1 + 3 * 2
    provenance = json.loads((results / "provenance.json").read_text())["tiny"]
    assert provenance["protocol"]["crop_multiple"] == 16
    assert provenance["files"][str(tiny_model)]
    assert "OtherNet" in (results / "table.md").read_text()
    assert (results / "sheets" / "pairs.jpg").stat().st_size > 1000


def test_the_same_predictions_twice_and_nothing_is_replaced_unasked(folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)

    def run(*more):
        app(
            ["evaluate", *PAIRS, "--predictions", "predicted", "--protocol", "restormer_y", *more],
            standalone_mode=False,
        )
        return capsys.readouterr().err

    run("--output", "one")
    assert "restormer_y" in run("--output", "two", "--jobs", "2")

    def same():
        names = ("results.json", "images.csv", "provenance.json", "table.md")
        return all((folders / "one" / n).read_bytes() == (folders / "two" / n).read_bytes() for n in names)

    assert same()
    with pytest.raises(OutputExistsError, match="--resume keeps its scores"):
        run("--output", "one")
    assert "3 of 3 scores were taken from" in run("--output", "one", "--resume")
    assert same()
    assert "were taken" not in run("--output", "one", "--overwrite")
    assert same()


def test_what_is_wrong_is_said_and_counted(moir_command, folders):
    nan = np.full((40, 48, 3), np.nan, np.float32)
    (folders / "predicted" / "a.png").unlink()
    np.save(folders / "predicted" / "a.npy", nan)
    (folders / "predicted" / "b.png").unlink()
    write(from_tensor(read(folders / "clean" / "c.png").rgb[:, :30]), folders / "clean" / "c.png", overwrite=True)
    outcome = moir_command("evaluate", *PAIRS, "--predictions", "predicted", "--json")
    assert outcome.code == 1
    errors = {r["image"]: r["error"] for r in outcome.records if "error" in r}
    assert "NaN" in errors["a"]
    assert "no prediction b.*" in errors["b"]
    assert "48x40" in errors["c"]
    assert "48x30" in errors["c"]
    assert outcome.records[-1]["failed"] == 3
    assert outcome.records[-1]["n"] == 0
    assert "Error: predicted, pairs/a: " in outcome.err


def test_a_missing_benchmark_alone(moir_command, folders):
    outcome = moir_command("evaluate", "--benchmark", "sots,cbsd68_s25", "--data", "clean")
    assert outcome.code == 1
    assert "sots: not found below clean" in outcome.err
    assert "cbsd68_s25: not found below clean" in outcome.err
    assert not (folders / "evaluation").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--benchmark", "sots"), "--data ROOT"),
        (("--benchmark", "cbsd68_s26", "--data", "."), "did you mean"),
        ((), "no benchmark was named"),
        ((*PAIRS, "--protocol", "moceir"), "did you mean 'moce_ir'"),
        ((*PAIRS, "--noise", "publishd"), "did you mean 'published'"),
        ((*PAIRS, "--predictions", "empty"), "predictions folder empty holds no pictures"),
        ((*PAIRS, "--predictions", "predicted", "--name", "x", "--name", "y"), r"2 names .* for 1 folders"),
        ((*PAIRS, "--baseline", "identiy"), "did you mean 'identity'"),
        ((*PAIRS, "--model", "nothing.safetensors"), "nothing.safetensors"),
        ((*PAIRS, "--baseline", "identity", "--overwrite", "--resume"), "ask for one"),
    ],
)
def test_mistakes(folders, monkeypatch, arguments, expected):
    (folders / "empty").mkdir()
    monkeypatch.chdir(folders)
    with pytest.raises(MoirError, match=expected):
        app(["evaluate", *arguments], standalone_mode=False)
    assert not (folders / "evaluation").exists()


def test_damage_of_ones_own_and_a_missing_benchmark(moir_command, folders, tiny_model):
    outcome = moir_command(
        "evaluate", "--model", tiny_model, "--name", "mine", "--benchmark", "synthetic,single_jpeg,sots", "--clean",
        "clean", "--with", "noise=25", "--with", "clean", "--data", ".", "--limit", 1, "--no-cost", "--output", "out",
    )  # fmt: skip
    assert outcome.code == 1  # sots is not there; the others are done
    assert "sots: not found" in outcome.err
    table = json.loads((folders / "out" / "results.json").read_text())
    assert [name for name, row in table.items() if row["n"] == 1] == ["noise=25", "clean", "single_jpeg"]
    assert table["clean"]["input_psnr"] == 100
    assert table["single_jpeg"]["made"] == "jpeg=inside"
    assert "error" in table["sots"]
    assert "mine" in outcome.out
