"""Checkpoints of IPT and EDT, plain and adapted with AdaptIR, as their programs write them."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from moir.adapters import attached
from moir.base.errors import CheckpointError
from moir.checkpoints import check_fit, convert
from moir.checkpoints.architectures import detect
from moir.models import create_model, load_model
from moir.networks.base import RestorationNetwork

# The number of attention heads and EDT's windows leave no trace in a file, so these tiny ones have the published.
TINY: dict[str, dict[str, Any]] = {
    "test_ipt": {"num_heads": 12, "num_layers": 1},
    "test_edt": {"num_heads": (6,), "depths": (2,), "window_size": (6, 24), "img_size": 48},
}


@pytest.fixture
def parity() -> Path:
    """The folder of the published programs' key lists."""
    folder = os.environ.get("MOIR_PARITY")
    if not folder:
        pytest.skip("MOIR_PARITY is unset: no published key lists here")
    return Path(folder)


def tiny(model: str, adapter: str | None = None, **options: Any) -> RestorationNetwork:
    torch.manual_seed(0)
    network = create_model(model, adapter=adapter, **TINY[model], **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


def lightning(network: RestorationNetwork, **args: Any) -> dict[str, Any]:
    """What AdaptIR's training program writes: Lightning's file, with the program's arguments as they are."""
    return {
        "state_dict": {f"net.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": {"args": argparse.Namespace(patch_size=48, batch_size=16, **args)},
        "epoch": 499,
    }


def same(one: RestorationNetwork, other: RestorationNetwork, side: int = 26) -> bool:
    x = torch.rand(1, 3, side, side + 3)
    with torch.no_grad():
        return torch.equal(one(x), other(x))


@pytest.mark.parametrize(("model", "name"), [("test_ipt", "ipt"), ("test_edt", "edt_denoise")])
def test_a_pretrained_file_loads(tmp_path: Path, model: str, name: str) -> None:
    network = tiny(model)
    torch.save(network.state_dict(), tmp_path / "IPT_pretrain.pt")
    loaded, card = load_model(str(tmp_path / "IPT_pretrain.pt"))
    assert (card.model, "adapter" in card.options, loaded.scale) == (name, False, 1)
    assert not attached(loaded)
    assert same(loaded, network)


@pytest.mark.parametrize(
    ("model", "task", "name"),
    [("test_ipt", "denoise_50", "ipt"), ("test_ipt", "sr_2", "ipt"), ("test_edt", "lr4_jpeg30", "edt_sr4")],
)
@pytest.mark.parametrize("stated", [str, list], ids=["a word", "a list"])
def test_an_adapted_file_loads_and_converts(tmp_path: Path, model: str, task: str, name: str, stated: type) -> None:
    adapted = tiny(model, "adaptir", task=task)
    # The published program takes the task as a list from the command line, and as a word where it is a default.
    content = lightning(adapted, de_type=task if stated is str else [task])
    torch.save(content, tmp_path / "last.ckpt")
    loaded, card = load_model(str(tmp_path / "last.ckpt"))
    assert (card.model, card.options["task"], card.options["adapter"]) == (name, task, "adaptir")
    assert list(attached(loaded)) == ["adaptir"]
    assert same(loaded, adapted)
    done = convert(tmp_path / "last.ckpt", tmp_path / "ours.safetensors", create=create_model)
    again, card = load_model(str(done.weights))
    assert card.options["adapter"] == "adaptir"
    assert same(again, adapted)


def test_a_stated_task_that_the_file_has_no_head_for_is_not_believed(tmp_path: Path) -> None:
    torch.save(lightning(tiny("test_edt", "adaptir", task="sr_4"), de_type="derainH"), tmp_path / "x.ckpt")
    network, card = load_model(str(tmp_path / "x.ckpt"))
    assert (card.model, card.options["task"], network.scale) == ("edt_sr4", "sr_4", 4)
    torch.save(lightning(tiny("test_ipt"), de_type="denoise_30denoise_50"), tmp_path / "y.ckpt")
    assert "task" not in load_model(str(tmp_path / "y.ckpt"))[1].options


def test_an_adapted_file_without_a_part_of_its_adapter_is_refused(tmp_path: Path) -> None:
    content = lightning(tiny("test_ipt", "adaptir"))
    lost = next(name for name in content["state_dict"] if name.endswith("adaptir.tail.weight"))
    del content["state_dict"][lost]
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"1 missing: body.*adaptir\.tail\.weight"):
        load_model(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize("file", ["adaptir_ipt_keys.json", "adaptir_edt_keys.json"])
def test_the_published_key_lists_are_recognised_and_fit(parity: Path, file: str) -> None:
    keys = json.loads((parity / file).read_text())
    entries = keys.get("sr_4", keys)
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    found = detect(shapes, {"de_type": "lr4_noise30"})
    assert found.options["adapter"] == "adaptir"
    assert (found.model, found.options["task"]) == ("ipt" if "ipt" in file else "edt_sr4", "lr4_noise30")
    with torch.device("meta"):
        network = create_model(found.model, **found.options)
        check_fit(network, {name: torch.empty(shape) for name, shape in shapes.items()}, file)
        plain = {name: shape for name, shape in shapes.items() if ".adaptir." not in name}
        found = detect(plain)
        network = create_model(found.model, **found.options)
        check_fit(network, {name: torch.empty(shape) for name, shape in plain.items()}, file)
