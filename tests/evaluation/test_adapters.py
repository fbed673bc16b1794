"""Models with adapters as methods: named for it, hashed, and refused where they do not fit."""

import json

import pytest
import torch

import moir
from moir.adapted import save_adapter
from moir.adapters import adapter_parameters, attach
from moir.base.errors import CheckpointError, InvalidValueError
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.cli.app import app
from moir.evaluation.methods import ModelMethod, model_method
from moir.evaluation.run import evaluate
from moir.evaluation.settings import Sources, settings
from moir.models import load_model

QUIET = {"device": "cpu", "precision": "float32"}


@pytest.fixture
def model(tmp_path, tiny_network):
    path = tmp_path / "models" / "tiny.safetensors"
    write_tensors(path, tiny_network.state_dict())
    Card("tiny", "test_compact", tiny_network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return path


@pytest.fixture
def adapters(model, tmp_path):
    """Files of two adapters for it."""
    files = []
    for seed, name in enumerate(("glass", "night")):
        network, _ = load_model(str(model))
        attach(network, "lora", name, rank=1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapter_parameters(network, name):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        files.append(tmp_path / f"{name}.safetensors")
        save_adapter(files[-1], network, name, "tiny")
    return files


@pytest.fixture
def pairs(pair_folders):
    damaged, clean = pair_folders
    (setting,) = settings("pairs", Sources(input=damaged, target=clean))
    return setting


def test_a_model_is_scored_with_its_adapter(model, adapters, pairs, photograph):
    methods = [ModelMethod(model, **QUIET), *(ModelMethod(model, adapter=file, **QUIET) for file in adapters)]
    assert [method.name for method in methods] == ["tiny", "tiny + glass", "tiny + night"]
    picture = photograph[:, :24, :32]
    for method, file in zip(methods[1:], adapters, strict=True):
        expected = moir.load(model, adapter=file, **QUIET)(picture).tensor
        assert torch.equal(method.restore(picture, setting=None), expected)
        assert not torch.allclose(methods[0].restore(picture, setting=None), expected, atol=1e-3)
        assert {file, file.with_suffix(".json"), model} <= set(method.files)
    scores = [e.summaries[0].means["psnr"] for e in evaluate(methods, [pairs])]
    assert len({round(score, 3) for score in scores}) == 3
    extra = sum(p.numel() for p in adapter_parameters(methods[1].restorer.engine.network, "glass"))
    alone = sum(p.numel() for p in methods[0].restorer.engine.network.parameters())
    assert methods[1].cost((16, 16)).parameters == alone + extra > alone


def test_a_restorer_with_adapters_is_named_for_the_first(model, adapters):
    restorer = moir.load(model, adapter=adapters[::-1], **QUIET)
    method = ModelMethod(restorer)
    assert (method.name, method.options()["adapter"]) == ("tiny + night", "night")
    assert "adapter" not in ModelMethod(model, **QUIET).options()
    with pytest.raises(InvalidValueError, match="load both together"):
        ModelMethod(restorer, adapter=adapters[0])


def test_an_ensemble_has_a_name_and_an_account_of_its_own(model, adapters):
    usual, both = ModelMethod(model, **QUIET), ModelMethod(model, adapter=adapters[0], ensemble=True, **QUIET)
    assert (usual.name, both.name) == ("tiny", f"tiny+ + {both.restorer.adapters[0]}")
    assert "ensemble" not in usual.options()
    assert both.options()["ensemble"] is True


def test_another_adapter_is_another_score(model, adapters, pairs, tmp_path):
    """A journal takes no score of one adapter for that of another, not even under one name."""
    journal, resumed = tmp_path / "records.jsonl", []

    def score(file):
        resumed.clear()
        method = ModelMethod(model, adapter=file, name="mine", **QUIET)
        found = evaluate([method], [pairs], journal=journal, on_step=lambda step: resumed.append(step.resumed))
        return found[0].summaries[0].means["psnr"]

    first = score(adapters[0])
    assert score(adapters[0]) == first
    assert all(resumed)
    assert score(adapters[1]) != first
    assert not any(resumed)


def test_what_does_not_fit_is_said_without_asking_others(model, adapters):
    with pytest.raises(CheckpointError, match=r"is an adapter for tiny, not a network.*--adapter") as error:
        model_method(adapters[0])
    assert "spandrel" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"is a network \(tiny\), not an adapter"):
        model_method(model, adapter=model)
    with pytest.raises(CheckpointError, match=r"belongs to tiny .*not to this compact"):
        model_method("compact", adapter=adapters[0], **QUIET)


def test_the_command_scores_each_adapter_on_its_own(model, adapters, pair_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = ("--benchmark", "pairs", "--input", str(pair_folders[0]), "--target", str(pair_folders[1]), "--no-cost")

    def run(*more):
        app(["evaluate", *folders, "--precision", "float32", "--device", "cpu", *more], standalone_mode=False)
        return json.loads((tmp_path / "evaluation" / "results.json").read_text())

    table = run("--model", str(model), "--adapter", "none", *(word for f in adapters for word in ("--adapter", str(f))))
    assert list(table) == ["tiny", "tiny + glass", "tiny + night"]
    assert len({table[name]["pairs"]["psnr"] for name in table}) == 3
    expected = ModelMethod(model, adapter=adapters[1], **QUIET)
    (found,) = evaluate([expected], settings("pairs", Sources(input=pair_folders[0], target=pair_folders[1])))
    assert table["tiny + night"]["pairs"]["psnr"] == pytest.approx(found.summaries[0].means["psnr"], abs=1e-4)
    account = json.loads((tmp_path / "evaluation" / "provenance.json").read_text())["tiny + glass"]
    assert account["files"][str(adapters[0])] == sha256_of(adapters[0])

    named = run("--model", str(model), "--adapter", str(adapters[0]), "--name", "windows", "--overwrite")
    assert list(named) == ["pairs"]
    assert (tmp_path / "evaluation" / "table.md").read_text().count("windows")
    with pytest.raises(InvalidValueError, match="in a run of its own"):
        run("--model", str(model), "--model", "compact", "--adapter", str(adapters[0]), "--overwrite")
    with pytest.raises(InvalidValueError, match=r"1 names \(--name\) for 2 models"):
        run("--model", str(model), "--adapter", "none", "--adapter", str(adapters[0]), "--name", "a", "--overwrite")
