"""Other programs' checkpoints, in the forms in which they are published."""

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from moir.base.errors import CheckpointError
from moir.checkpoints import read_foreign
from moir.checkpoints.foreign import Foreign

State = dict[str, torch.Tensor]
Wrap = Callable[..., dict[str, Any]]


def same(found: Foreign, state: State) -> None:
    assert list(found.tensors) == list(state)
    for name, value in state.items():
        assert found.tensors[name].dtype == value.dtype, name
        assert torch.equal(found.tensors[name], value), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_lightning(tmp_path: Path, full_state: State, lightning: Wrap, zipped: bool) -> None:
    path = tmp_path / "last.ckpt"
    content = lightning(full_state, topk=1, with_complexity=False)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)

    found = read_foreign(path)
    same(found, full_state)
    assert found.settings["with_complexity"] is False
    assert found.settings["de_type"] == ["denoise_15"]
    notes = "\n".join(found.notes)
    for word in (
        "state_dict",
        "optimizer_states",
        "epoch = 119",
        "argparse.Namespace",
        "research.options.TrainOptions",
        "'net.'",
    ):
        assert word in notes


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"params": s},
        lambda s: {"params": {"other": torch.zeros(1)}, "params_ema": s},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"state_dict": {f"module.net.{k}": torch.nn.Parameter(v) for k, v in s.items()}},
        lambda s: {"model": {"state_dict": s}, "best_psnr": torch.tensor(3.0)},
    ],
    ids=["raw", "params", "params_ema", "model", "parameters", "nested"],
)
def test_wrappers(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    state = OrderedDict({"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3)})
    torch.save(wrap(state), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    same(read_foreign(tmp_path / "x.pth"), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_kinds_views_and_shared_memory(tmp_path: Path, zipped: bool) -> None:
    base = torch.randn(6, 4)
    state = {
        "view": base[1:4, ::2],
        "transposed": base.t(),
        "tied": base,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3).half(),
        "bf16": torch.randn(3).bfloat16(),
        "double": torch.randn(3).double(),
        "byte": torch.tensor([1, 255], dtype=torch.uint8),
        "flag": torch.tensor([True, False]),
        "int": torch.tensor([-5], dtype=torch.int32),
    }
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_foreign(tmp_path / "x.pt")
    same(found, state)
    assert found.tensors["tied"].untyped_storage().data_ptr() == found.tensors["view"].untyped_storage().data_ptr()


def test_real_state_dict_with_metadata(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(network.state_dict(), tmp_path / "x.pth")
    same(read_foreign(tmp_path / "x.pth"), network.state_dict())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_pickles(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "column order": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "scalar": np.float32(3),
        "counts": np.arange(3, dtype=np.int64),
        "empty": np.zeros((0, 2), np.float32),
        "half": np.ones(2, np.float16),
        "tied": np.ones(1, np.float32),
    }
    arrays["tied too"] = arrays["tied"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays, protocol))
    found = read_foreign(tmp_path / "x.pkl")
    same(found, {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()})


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_pickles_of_both_numpy_generations(tmp_path: Path, module: bytes) -> None:
    written = pickle.dumps({"a": np.ones(2, np.float32)}, 2)
    (tmp_path / "x.pkl").write_bytes(written.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", module))
    assert read_foreign(tmp_path / "x.pkl").tensors["a"].tolist() == [1, 1]


def jittor_file(path: Path, content: Any) -> None:
    pickled = pickle.dumps(content, 4)
    path.write_bytes(pickled + hashlib.sha1(pickled).digest() + b"HCAJSLHD")


def test_jittor(tmp_path: Path, full_state: State) -> None:
    jittor_file(tmp_path / "x.pkl", {name: value.numpy() for name, value in full_state.items()} | {"epoch": 10})
    found = read_foreign(tmp_path / "x.pkl")
    same(found, full_state)
    assert "epoch = 10" in found.notes[0]


def test_jittor_checksum(tmp_path: Path) -> None:
    jittor_file(tmp_path / "x.pkl", {"a": np.ones(20, np.float32)})
    damaged = bytearray((tmp_path / "x.pkl").read_bytes())
    damaged[damaged.index(b"\x80?\x00\x00\x80?")] ^= 1
    (tmp_path / "x.pkl").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="checksum is wrong"):
        read_foreign(tmp_path / "x.pkl")


def test_safetensors_pass_through(tmp_path: Path) -> None:
    state = {"module.a": torch.randn(2), "module.b": torch.randn(3)}
    for name in ("x.safetensors", "x.ckpt"):  # told by its content
        save_file(state, tmp_path / name, metadata={"format": "pt"})
        same(read_foreign(tmp_path / name), {"a": state["module.a"], "b": state["module.b"]})


def test_prefixes_stay_unless_all_share_them(tmp_path: Path) -> None:
    state = {"net.a": torch.randn(2), "loss.b": torch.randn(3)}
    torch.save(state, tmp_path / "x.pt")
    same(read_foreign(tmp_path / "x.pt"), state)


def test_classes_are_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "trap.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    pickled = b"\x80\x02}(X\x04\x00\x00\x00confctrap\nConfig\n)\x81}X\x01\x00\x00\x00aK\x05sbX\x01\x00\x00\x00w"
    pickled += pickle.dumps(np.ones(1, np.float32), 2)[2:-1] + b"u."
    (tmp_path / "x.pkl").write_bytes(pickled)
    found = read_foreign(tmp_path / "x.pkl")
    assert list(found.tensors) == ["w"]
    assert "trap.Config" in found.notes[-1]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not a checkpoint", "damaged, or not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (bytes(257) + b"ustar" + bytes(300), "tar file"),
        (pickle.dumps({"epoch": 3}), "no weights"),
        (pickle.dumps([1, 2]), "no weights"),
        (pickle.dumps({"a": np.array([None])}), "plain numbers"),
        (pickle.dumps({"a": np.ones(1, ">f4")}), "'>f4'"),
        (pickle.dumps({"a": np.ones(1, [("x", "f4")])}), "plain numbers"),
        (pickle.dumps({"a\x1b[31m": np.ones(1, "f4")}), "not a name"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_foreign(tmp_path / "x.ckpt")
    assert "x.ckpt" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_foreign(tmp_path / "x.ckpt")


def test_whole_modules_and_programs(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    torch.save(network, tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"class torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_foreign(tmp_path / "module.pt")
    torch.save(torch.zeros(1).to_sparse(), tmp_path / "sparse.pt")
    with pytest.raises(CheckpointError, match="a kind of tensor that moir does not read"):
        read_foreign(tmp_path / "sparse.pt")
