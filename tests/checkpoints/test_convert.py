"""Foreign checkpoints into safetensors with a card, and straight into networks."""

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import moir
from moir.base.errors import CheckpointError, InvalidValueError, OutputExistsError, UnknownNameError
from moir.checkpoints import Card, convert, read_tensors
from moir.checkpoints.architectures import ARCHITECTURES, detect
from moir.cli.app import app
from moir.models import create_model, load_model

State = dict[str, torch.Tensor]
Wrap = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_published_form_to_safetensors(tmp_path: Path, full_state: State, lightning: Wrap, zipped: bool) -> None:
    src, dst = tmp_path / "aio3.ckpt", tmp_path / "out" / "aio3.safetensors"
    torch.save(lightning(full_state, topk=1), src, _use_new_zipfile_serialization=zipped)
    done = convert(src, dst, create=create_model)

    tensors, _ = read_tensors(dst)
    assert set(tensors) == set(full_state)
    assert all(torch.equal(tensors[name], value) for name, value in full_state.items())
    card = Card.read(dst.with_suffix(".json"))
    digest = hashlib.sha256(src.read_bytes()).hexdigest()
    assert (card.name, card.model, card.parameters) == ("aio3", "moce_ir_s", 11_477_752)
    assert card.source == f"converted from aio3.ckpt, sha256 {digest}"
    assert "non-commercial" in card.licence
    assert "CC BY-NC-SA 4.0" in card.licence
    assert card.sha256 == hashlib.sha256(dst.read_bytes()).hexdigest()
    assert not any("not the usual" in note for note in done.notes)

    network, loaded = load_model(str(dst))
    assert loaded == card
    assert not network.training
    assert all(torch.equal(value, full_state[name]) for name, value in network.state_dict().items())


def test_full_size_is_recognised_by_its_shapes(published_shapes: dict[str, dict[str, list[int]]]) -> None:
    for model, shapes in published_shapes.items():
        detected = detect({name: tuple(shape) for name, shape in shapes.items()})
        assert detected.model == model
        with torch.device("meta"):
            network = create_model(model, **detected.options)
            assert network.options == create_model(model).options


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("moce_ir_s", {}),
        ("moce_ir", {}),
        ("moce_ir_s", {"dim": 16, "levels": 3, "heads": (1, 2, 4), "num_blocks": (1, 2, 3), "num_dec_blocks": (2, 1),
                       "stage_depth": (1, 1), "num_refinement_blocks": 2}),
        ("moce_ir_s", {"num_experts": 3, "ffn_expansion_factor": 2.66}),
        ("moce_ir_s", {"rank_type": "lin", "rank": 3}),
        ("moce_ir_s", {"rank_type": "exp", "rank": 2, "num_experts": 3}),
        ("moce_ir_s", {"rank_type": "constant", "rank": 7}),
        ("restormer", {}),
        ("restormer", {"LayerNorm_type": "BiasFree"}),
        ("restormer", {"dim": 24, "num_blocks": (1, 2, 2, 3), "bias": True, "ffn_expansion_factor": 3.1}),
        ("promptir", {}),
        ("promptir", {"prompt_len": 7, "prompt_dims": (32, 64, 128)}),
    ],
)  # fmt: skip
def test_options_are_read_from_shapes(model: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = create_model(model, **options)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    detected = detect(shapes)
    assert detected.model == model
    with torch.device("meta"):
        found = create_model(detected.model, **detected.options)
    assert {name: tuple(value.shape) for name, value in found.state_dict().items()} == shapes
    assert {k: detected.options[k] for k in options if k in detected.options} == {
        k: v for k, v in options.items() if k in detected.options
    }


def test_no_family_takes_another_for_its_own() -> None:
    for architecture in ARCHITECTURES:
        for model in architecture.models:
            with torch.device("meta"):
                shapes = {name: tuple(value.shape) for name, value in create_model(model).state_dict().items()}
            assert detect(shapes).model == model
            assert "non-commercial" in architecture.licence


def test_what_shapes_cannot_tell_comes_from_the_file(tmp_path: Path, tiny_state: State, lightning: Wrap) -> None:
    content = lightning(tiny_state, topk=2, with_complexity=False, complexity_scale="min", num_experts="many")
    torch.save(content, tmp_path / "x.ckpt")
    network, card = load_model(str(tmp_path / "x.ckpt"))
    assert (card.options["topk"], card.options["with_complexity"]) == (2, False)
    assert card.options["num_experts"] == 4
    assert network.options["complexity_scale"] == "min"
    done = convert(tmp_path / "x.ckpt", tmp_path / "y", options={"topk": 1}, create=create_model)
    assert done.card.options["topk"] == 1


def test_jittor_pickle_loads(tmp_path: Path, tiny_state: State) -> None:
    pickled = pickle.dumps({name: value.numpy() for name, value in tiny_state.items()}, 4)
    (tmp_path / "x.pkl").write_bytes(pickled + hashlib.sha1(pickled).digest() + b"HCAJSLHD")
    restorer = moir.load(tmp_path / "x.pkl", device="cpu", precision="float32")
    picture = torch.rand(3, 16, 24)
    reference = create_model("test_moce_ir")
    reference.load_state_dict(tiny_state)
    with torch.no_grad():
        expected = reference.eval()(picture[None])[0].clamp(0, 1)
    assert (restorer(picture).tensor - expected).abs().max() < 1e-4
    assert restorer.card is not None
    assert "x.pkl" in restorer.card.source


def test_strictness(tmp_path: Path, tiny_state: State) -> None:
    state = dict(tiny_state)
    del state["enc.1.0.layers.0.ffn.dwconv.bias"], state["patch_embed.proj.weight"]
    state["extra"] = torch.zeros(1)
    state["output.weight"] = torch.zeros(3, 8, 1, 1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "x.pth", tmp_path / "y", "test_moce_ir", create=create_model)
    message = str(caught.value)
    assert "x.pth does not fit MoCEIR" in message
    assert "2 missing: patch_embed.proj.weight, enc.1.0.layers.0.ffn.dwconv.bias" in message
    assert "1 unexpected: extra" in message
    assert "1 of another shape: output.weight ((3, 8, 1, 1), the network (3, 8, 3, 3))" in message
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_a_missing_last_block_is_named(tmp_path: Path) -> None:
    state = create_model("test_restormer", num_blocks=(1, 1, 1, 2)).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("latent.1.")}, tmp_path / "x.pth")
    done = convert(tmp_path / "x.pth", tmp_path / "y", create=create_model)
    assert "num_blocks (1, 1, 1, 1) (usual: (4, 6, 6, 8))" in done.notes[-1]


def test_another_network_than_named(tmp_path: Path, tiny_state: State) -> None:
    torch.save(tiny_state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"does not fit Restormer: .*missing.*unexpected"):
        convert(tmp_path / "x.pth", tmp_path / "y", "test_restormer", create=create_model)
    with pytest.raises(UnknownNameError, match="unknown model"):
        convert(tmp_path / "x.pth", tmp_path / "y", "restormr", create=create_model)
    with pytest.raises(UnknownNameError, match="top_k"):
        convert(tmp_path / "x.pth", tmp_path / "y", options={"top_k": 1}, create=create_model)
    with pytest.raises(CheckpointError, match=r"cannot be loaded as moce_ir_s with .*topk"):
        convert(tmp_path / "x.pth", tmp_path / "y", options={"topk": 9}, create=create_model)


def test_unknown_network(tmp_path: Path) -> None:
    state = create_model("test_compact").state_dict()
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"belong to no network that is recognised .*--model"):
        load_model(str(tmp_path / "x.pth"))
    done = convert(tmp_path / "x.pth", tmp_path / "y", "test_compact", create=create_model)
    assert done.card.licence.startswith("unknown: treat as non-commercial")
    assert load_model(str(tmp_path / "y.safetensors"))[1].model == "test_compact"


def test_nothing_is_overwritten(tmp_path: Path, tiny_state: State) -> None:
    torch.save(tiny_state, tmp_path / "x.pth")
    (tmp_path / "y.json").write_text("mine")
    with pytest.raises(OutputExistsError):
        convert(tmp_path / "x.pth", tmp_path / "y.safetensors", create=create_model)
    assert (tmp_path / "y.json").read_text() == "mine"
    assert not (tmp_path / "y.safetensors").exists()
    convert(tmp_path / "x.pth", tmp_path / "y.safetensors", create=create_model, overwrite=True)
    with pytest.raises(OutputExistsError):
        convert(tmp_path / "x.pth", tmp_path / "y.safetensors", create=create_model)
    with pytest.raises(InvalidValueError, match="the file to convert"):
        convert(tmp_path / "y.safetensors", tmp_path / "y.safetensors", create=create_model, overwrite=True)
    with pytest.raises(InvalidValueError, match=r"must end in \.safetensors"):
        convert(tmp_path / "x.pth", tmp_path / "y.ckpt", create=create_model)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pth", "y.json", "y.safetensors"]


def test_licence_and_precision(tmp_path: Path, tiny_state: State) -> None:
    state = {k: v.double() if "weight" in k else v for k, v in tiny_state.items()}
    torch.save(state, tmp_path / "x.pth")
    done = convert(tmp_path / "x.pth", tmp_path / "y", licence="MIT", create=create_model)
    assert done.card.licence == "MIT (as stated by whoever converted the weights; not checked)"
    tensors, facts = read_tensors(tmp_path / "y.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert facts["licence"] == done.card.licence


def test_safetensors_without_a_card_load(tmp_path: Path, tiny_state: State) -> None:
    torch.save(tiny_state, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "y", create=create_model)
    (tmp_path / "y.json").unlink()
    network, card = load_model(str(tmp_path / "y.safetensors"))
    assert card.model == "moce_ir_s"
    assert torch.equal(network.state_dict()["output.weight"], tiny_state["output.weight"])


def test_command(tmp_path: Path, tiny_state: State, lightning: Wrap) -> None:
    torch.save(lightning(tiny_state), tmp_path / "x.ckpt")
    run = CliRunner().invoke
    arguments = ["convert", str(tmp_path / "x.ckpt"), str(tmp_path / "y.safetensors")]
    said = run(app, [*arguments, "--option", "topk=2", "--option", "heads=[1, 2, 4, 8]", "--licence", "CC0", "--json"])
    assert said.exit_code == 0, said.output
    record = json.loads(said.stdout)
    assert record["output"] == str(tmp_path / "y.safetensors")
    assert (record["model"], record["options"]["topk"]) == ("moce_ir_s", 2)
    assert record["licence"].startswith("CC0 (as stated")
    assert any("net." in note for note in record["notes"])

    again = run(app, arguments)
    assert isinstance(again.exception, OutputExistsError)
    said = run(app, [*arguments, "--overwrite"])
    assert said.exit_code == 0
    assert said.stdout == ""
    assert "licence: unclear: treat as non-commercial" in said.stderr
    wrong = run(app, [*arguments, "--overwrite", "--option", "topk"])
    assert isinstance(wrong.exception, InvalidValueError)


def test_restore_reads_a_checkpoint(tmp_path: Path, tiny_state: State) -> None:
    from PIL import Image

    torch.save({"state_dict": {f"net.{k}": v for k, v in tiny_state.items()}}, tmp_path / "x.ckpt")
    Image.new("RGB", (20, 12), (90, 120, 30)).save(tmp_path / "a.png")
    arguments = ["restore", str(tmp_path / "a.png"), "--model", str(tmp_path / "x.ckpt"), "--device", "cpu", "--json"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["model"] == "x"
    assert (tmp_path / "a_restored.png").exists()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom moir.cli.app import app\ntry:\n    app(['convert', '--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--licence" in done.stdout


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no suffix of a weights file \(\.safetensors, \.ckpt"):
        load_model(str(tmp_path / "x.onnx"))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_model(str(tmp_path / "x.ckpt"))
    with pytest.raises(CheckpointError, match="there is no weights file"):
        load_model(str(tmp_path / "x.safetensors"))
