"""An export is whole, says what it is, and does not appear unless it agrees with the network."""

import json

import pytest
import torch
from typer.testing import CliRunner

import moir.export.writing as writing
from moir.base.errors import InvalidValueError, OutputExistsError, UnknownNameError
from moir.cli.app import app
from moir.export import ExportError, Manifest, export, load_exported

from .conftest import make


def test_the_description_says_what_a_program_must_know(compact):
    _, folder = compact
    manifest = Manifest.read(folder)
    assert {path.name for path in folder.iterdir()} == {"analyse.onnx", "restore.onnx", "moir.json"}
    assert (manifest.model, manifest.network, manifest.licence) == ("my test_compact", "test_compact", "CC0")
    assert (manifest.size_multiple, manifest.overlap, manifest.scale) == (8, 120, 1)
    assert manifest.context == {
        "presence": ["batch", 7], "degree": ["batch", 7, 3], "embedding": ["batch", 8], "remove": ["batch", 8],
    }  # fmt: skip
    assert manifest.restore.inputs == ["picture", "embedding", "remove"]
    assert [row["shape"] for row in manifest.check] == [[1, 3, 48, 48], [2, 3, 45, 39], [1, 3, 21, 41]]
    assert all(row["psnr"] > 90 for row in manifest.check)


def test_an_instruction_replaces_one_tensor_of_the_context(compact):
    network, folder = compact
    exported = load_exported(folder)
    order = exported.manifest.instruction["order"]
    x = torch.rand(1, 3, 40, 40)
    told = torch.tensor([[float(name in ("rain", "instructed")) for name in order]])
    with torch.no_grad():
        wanted = network(x, network.instruct(network.analyse(x), ["rain"]))
    got = exported.forward(x, {**exported.analyse(x), exported.manifest.instruction["input"]: told})
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(exported.forward(x), wanted, atol=1e-4)


@pytest.mark.parametrize("graph", ["analyse", "restore"])
def test_graphs_of_other_weights_are_found_out_and_not_left_behind(graph, tmp_path, monkeypatch):
    network, card = make("test_compact")
    other, _ = make("test_compact")
    changed = other.estimator.mix[2].weight if graph == "analyse" else other.stem.weight
    with torch.no_grad():
        changed[0] += 0.05
    record = writing.record
    monkeypatch.setattr(writing, "record", lambda _, folder: record(other, folder))
    with pytest.raises(ExportError, match="presence differs" if graph == "analyse" else "dB from PyTorch"):
        export(network, tmp_path / "graphs", card, size=40)
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unless_asked_for_and_nothing_but_an_export_ever(tmp_path):
    network, card = make("test_unet")
    export(network, tmp_path / "graphs", card, size=40)
    before = (tmp_path / "graphs" / "restore.onnx").read_bytes()
    with pytest.raises(OutputExistsError, match="graphs exists already"):
        export(network, tmp_path / "graphs", card, size=40)
    with torch.no_grad():
        network.output.bias += 0.1
    export(network, tmp_path / "graphs", card, size=40, overwrite=True)
    assert (tmp_path / "graphs" / "restore.onnx").read_bytes() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InvalidValueError, match="is not an export"):
        export(network, tmp_path / "mine", card, size=40, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"graphs", "mine"}
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_half_precision_halves_the_weights_on_disk(tmp_path):
    network, card = make("test_unet", width=16)
    export(network, tmp_path / "whole", card, size=40)
    manifest = export(network, tmp_path / "half", card, precision="fp16", size=40)
    whole, half = ((tmp_path / name / "restore.onnx").stat().st_size for name in ("whole", "half"))
    assert 0.4 * whole < half < 0.65 * whole
    assert 50 < min(row["psnr"] for row in manifest.check) < 110  # near, and not the same


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_openvino(precision, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'moir[export]'")
    network, card = make("test_compact")
    manifest = export(network, tmp_path / "graphs", card, "openvino", precision, size=40)
    assert set(manifest.restore.sha256) == {"restore.xml", "restore.bin"}
    x = torch.rand(2, 3, 31, 50)
    with torch.no_grad():
        wanted = network(x)
    got = load_exported(tmp_path / "graphs", "openvino").forward(x)
    torch.testing.assert_close(got, wanted, atol=1e-5 if precision == "float32" else 1e-2, rtol=0)
    with pytest.raises(ExportError, match="OpenVINO's format"):
        load_exported(tmp_path / "graphs", "onnxruntime")


def test_values_that_are_not_possible(tmp_path):
    network, card = make("test_unet")
    with pytest.raises(UnknownNameError, match="onxn"):
        export(network, tmp_path / "graphs", card, "onxn")
    with pytest.raises(UnknownNameError, match="bf16"):
        export(network, tmp_path / "graphs", card, precision="bf16")
    with pytest.raises(InvalidValueError, match="size 8"):
        export(network, tmp_path / "graphs", card, size=8)


def test_the_command_refuses_an_existing_folder_before_it_loads_anything(tmp_path):
    result = CliRunner().invoke(app, ["export", "no-such-model", "--output", str(tmp_path)])
    assert isinstance(result.exception, OutputExistsError)


def test_the_command_exports_the_shipped_default(tmp_path):
    arguments = ["export", "compact", "-o", str(tmp_path / "graphs"), "--size", "40", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["model"] == "compact"
    assert record["bytes"]["restore.onnx"] == (tmp_path / "graphs" / "restore.onnx").stat().st_size
    assert min(row["psnr"] for row in record["check"]) > 100
