"""Damaged files give tensors or a CheckpointError, never anything else."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moir.base.errors import CheckpointError
from moir.checkpoints import read_foreign


def _content() -> dict[str, object]:
    import argparse

    state = {"net.a.weight": torch.arange(6.0).reshape(2, 3), "net.a.bias": torch.ones(2, dtype=torch.int64)}
    return {"state_dict": state, "hyper_parameters": {"opt": argparse.Namespace(dim=3)}, "epoch": 1}


def _saved(zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(_content(), file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


VALID = {
    "zip": _saved(True),
    "legacy": _saved(False),
    "pickle": pickle.dumps({"a": np.ones((2, 2), np.float32), "b": np.float32(2)}, 4),
}


@pytest.mark.parametrize("form", VALID)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes(tmp_path: Path, form: str, data: st.DataObject) -> None:
    written = bytearray(VALID[form])
    for _ in range(data.draw(st.integers(1, 4))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    _read(tmp_path / "x.ckpt", bytes(written))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_behind_a_good_checksum(tmp_path: Path, data: st.DataObject) -> None:
    """The zip's own checksums would hide the pickle from the fuzz."""
    with zipfile.ZipFile(io.BytesIO(VALID["zip"])) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(n for n in entries if n.endswith("data.pkl"))
    pickled = bytearray(entries[name])
    for _ in range(data.draw(st.integers(1, 3))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key, value in (entries | {name: bytes(pickled)}).items():
            archive.writestr(key, value)
    _read(tmp_path / "x.ckpt", file.getvalue())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200))
def test_noise(tmp_path: Path, noise: bytes) -> None:
    _read(tmp_path / "x.ckpt", noise)
    _read(tmp_path / "x.ckpt", b"\x80\x02" + noise)


def _read(path: Path, written: bytes) -> None:
    path.write_bytes(written)
    try:
        found = read_foreign(path)
    except CheckpointError:
        pass
    else:
        assert found.tensors
        assert all(isinstance(t, torch.Tensor) for t in found.tensors.values())
    assert [p.name for p in path.parent.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("form", VALID)
def test_truncated_anywhere(tmp_path: Path, form: str) -> None:
    written = VALID[form]
    path = tmp_path / "x.ckpt"
    for length in range(0, len(written), max(1, len(written) // 60)):
        path.write_bytes(written[:length])
        with pytest.raises(CheckpointError):
            read_foreign(path)


def test_a_damaged_number_in_a_zip_is_noticed(tmp_path: Path) -> None:
    written = bytearray(VALID["zip"])
    place = written.index(torch.arange(6.0).numpy().tobytes())
    written[place + 7] ^= 64
    (tmp_path / "x.ckpt").write_bytes(written)
    with pytest.raises(CheckpointError, match="damaged"):
        read_foreign(tmp_path / "x.ckpt")


def test_big_endian_and_torchscript(tmp_path: Path) -> None:
    for name, value, message in (("byteorder", b"big", "big-endian"), ("constants.pkl", b"x", "TorchScript")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x/data.pkl", pickle.dumps({}, 2))
            archive.writestr(f"x/{name}", value)
        (tmp_path / "x.pt").write_bytes(file.getvalue())
        with pytest.raises(CheckpointError, match=message):
            read_foreign(tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with pytest.raises(CheckpointError, match="not one of torch's"):
        read_foreign(tmp_path / "x.npz")
