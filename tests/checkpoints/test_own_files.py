"""moir's own files: safetensors, cards, and weights from the hub."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from moir.base.errors import CheckpointError, MissingExtraError, OutputExistsError
from moir.checkpoints import Card, load_into, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.checkpoints.hub import fetch
from moir.models import create_model, find_weights, load_model


def test_tensors_and_facts(tmp_path: Path) -> None:
    base = torch.randn(4, 3)
    state = {
        "a": base.t(),
        "tied": base,
        "half": base.half(),
        "count": torch.tensor(3),
        "parameter": torch.nn.Parameter(base),
    }
    facts = {"step": 3, "names": ["x", "ü"], "nothing": None}
    write_tensors(tmp_path / "new" / "x.safetensors", state, facts)
    tensors, found = read_tensors(tmp_path / "new" / "x.safetensors")
    assert found == facts
    assert all(torch.equal(tensors[name], value) for name, value in state.items())
    assert all(tensors[name].dtype == value.dtype for name, value in state.items())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.safetensors"]


def test_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(1)})
    with pytest.raises(OutputExistsError):
        write_tensors(path, {"a": torch.ones(1)})
    assert read_tensors(path)[0]["a"] == 0
    write_tensors(path, {"a": torch.ones(1)}, overwrite=True)
    assert read_tensors(path)[0]["a"] == 1


def test_other_programs_facts_are_text(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert read_tensors(tmp_path / "x.safetensors")[1] == {"format": "pt"}


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}"])
def test_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        read_tensors(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="there is no weights file"):
        read_tensors(tmp_path / "y.safetensors")


def test_load_into_is_strict_and_converts() -> None:
    network = torch.nn.Linear(2, 3)
    load_into(network, {"weight": torch.ones(3, 2).half(), "bias": torch.zeros(3)}, "x")
    assert network.weight.dtype == torch.float32
    with pytest.raises(
        CheckpointError, match="x does not fit Linear: 1 missing: bias; 1 unexpected: b; 1 of another shape"
    ):
        load_into(network, {"weight": torch.zeros(2, 3), "b": torch.zeros(3)}, "x")
    assert (network.weight == 1).all()
    with pytest.raises(CheckpointError, match=r"30 unexpected: .* and 10 more"):
        load_into(network, {**network.state_dict(), **{f"x{i}": torch.zeros(1) for i in range(30)}}, "x")


def test_card(tmp_path: Path) -> None:
    card = Card("x", "compact", {"blocks": [1, 2]}, licence="CC0", training_data=[{"name": "ü"}], bytes_per_pixel=1.5)
    card.write(tmp_path / "x.json")
    assert Card.read(tmp_path / "x.json") == card
    with pytest.raises(OutputExistsError):
        card.write(tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    for broken in ("{", "[]", json.dumps({**content, "licenze": 1}), json.dumps({"name": "x"})):
        (tmp_path / "x.json").write_text(broken)
        with pytest.raises(CheckpointError, match="not a readable card"):
            Card.read(tmp_path / "x.json")
    with pytest.raises(CheckpointError, match="not a readable card"):
        Card.read(tmp_path / "y.json")


def own(folder: Path, name: str = "x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    network = create_model("test_compact")
    path = folder / f"{name}.safetensors"
    write_tensors(path, network.state_dict())
    Card(name, "test_compact", network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return path


def test_load_model_checks_the_checksum(tmp_path: Path) -> None:
    path = own(tmp_path)
    network, card = load_model(str(path))
    assert card.name == "x"
    assert not network.training
    written = bytearray(path.read_bytes())
    written[-1] ^= 1
    path.write_bytes(written)
    with pytest.raises(CheckpointError, match="sha256 differs"):
        load_model(str(path))


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = own(tmp_path / "snapshots" / "abc123", "model").parent
    asked = []

    def download(repository: str, name: str, revision: str | None = None) -> str:
        asked.append((repository, name, revision))
        if repository == "owner/gone":
            raise OSError("404")
        return str(snapshot / name)

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert fetch("hf://owner/repo") == snapshot / "model.safetensors"
    # The weights are taken at the card's own revision, so that the two belong together.
    assert asked == [("owner/repo", "model.json", None), ("owner/repo", "model.safetensors", "abc123")]
    assert find_weights("hf://owner/repo") == snapshot / "model.safetensors"
    assert load_model("hf://owner/repo")[1].model == "test_compact"
    with pytest.raises(CheckpointError, match="cannot get hf://owner/gone: 404"):
        fetch("hf://owner/gone")
    for wrong in ("hf://", "hf://repo", "hf:///repo", "hf://owner/", "hf://a/b/c"):
        with pytest.raises(CheckpointError, match="not an address"):
            fetch(wrong)


def test_hub_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"moir\[hub\]"):
        fetch("hf://owner/repo")
