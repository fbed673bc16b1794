"""Files that try to run code, or to fill the memory, are refused, and nothing happens."""

import io
import os
import pickle
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moir.base.errors import CheckpointError
from moir.checkpoints import read_foreign
from moir.checkpoints.containers import MAGIC
from moir.models import load_model

TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)
"""A tensor of two numbers in storage 0."""


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def body(evil: bytes) -> bytes:
    """A state dict of one good tensor, with something else beside it."""
    return b"\x80\x02}(" + text("w") + TENSOR + text("evil") + evil + b"u."


def as_zip(pickled: bytes, storage: bytes = bytes(8), compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/data/0", storage)
    return file.getvalue()


def as_legacy(pickled: bytes, count: int = 2, storage: bytes = bytes(8)) -> bytes:
    head = [MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    written = b"".join(pickle.dumps(value, 2) for value in head) + pickled + pickle.dumps(["0"], 2)
    return written + struct.pack("<q", count) + storage


def as_plain(pickled: bytes) -> bytes:
    return pickled.replace(TENSOR, b"K\x01")


FORMS: dict[str, Callable[[bytes], bytes]] = {"zip": as_zip, "legacy": as_legacy, "pickle": as_plain}


def test_the_good_part_is_good(tmp_path: Path) -> None:
    for name in ("zip", "legacy"):
        (tmp_path / name).write_bytes(FORMS[name](body(b"N")))
        assert read_foreign(tmp_path / name).tensors["w"].tolist() == [0, 0]


def call(module: str, name: str, *arguments: str) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(text(a) for a in arguments) + b"tR"


GETATTR = call("builtins", "getattr", "x", "y")
TRICKS: dict[str, tuple[bytes, str]] = {
    "os.system": (call("os", "system", "touch MARKER"), "asks for os.system"),
    "posix.system": (call("posix", "system", "touch MARKER"), "asks for posix.system"),
    "nt.system": (call("nt", "system", "touch MARKER"), "asks for nt.system"),
    "eval": (call("builtins", "eval", "open('MARKER', 'w')"), "asks for builtins.eval"),
    "exec": (call("builtins", "exec", "open('MARKER', 'w')"), "asks for builtins.exec"),
    "open": (call("builtins", "open", "MARKER", "w"), "asks for builtins.open"),
    "import": (call("builtins", "__import__", "antigravity"), "asks for builtins.__import__"),
    "python 2 eval": (call("__builtin__", "eval", "open('MARKER', 'w')"), "asks for builtins.eval"),
    "popen": (call("subprocess", "Popen", "touch MARKER"), "asks for subprocess.Popen"),
    "partial": (call("functools", "partial", "x"), "asks for functools.partial"),
    "getattr": (GETATTR, "asks for builtins.getattr"),
    "copyreg": (call("copyreg", "_reconstructor", "x"), "asks for copyreg._reconstructor"),
    "python 2 copyreg": (call("copy_reg", "__newobj__", "x"), "asks for copyreg.__newobj__"),
    "runpy": (call("runpy", "run_path", "MARKER"), "asks for runpy.run_path"),
    "pathlib method": (call("pathlib", "Path.touch", "MARKER"), "asks for pathlib.Path.touch"),
    "numpy exec": (call("numpy.testing._private.utils", "runstring", "open('MARKER', 'w')"), "runstring"),
    "numpy class": (call("numpy.lib", "DataSource", "x"), "asks for numpy.lib.DataSource"),
    "torch load": (call("torch.serialization", "load", "MARKER"), "asks for torch.serialization.load"),
    "torch hub": (call("torch.hub", "load", "x"), "asks for torch.hub.load"),
    "torch subclass": (call("torch._tensor", "_rebuild_from_type_v2", "x"), "asks for torch._tensor"),
    "moir's own": (call("moir.models", "load_model", "x"), "asks for moir.models.load_model"),
    "other package": (call("pip._internal", "main", "x"), "asks for pip._internal.main"),
    "main": (call("__main__", "main", "x"), "asks for __main__.main"),
    "dunder of a class": (call("research", "Config.__init__", "x"), "asks for research.Config.__init__"),
    "globals of a class": (call("research", "Config.__init__.__globals__"), "__globals__"),
    "strange spelling": (call("re search", "Config"), "was refused"),
    "escape codes": (call("os\x1b[2J", "system"), r"os\\x1b"),
    "stack global": (text("os") + text("system") + b"\x93" + text("touch MARKER") + b"\x85R", "asks for os.system"),
    "stack global of no text": (b"K\x01K\x02\x93)R", "unusual way"),
    "inst": (b"(" + text("touch MARKER") + b"ios\nsystem\n", "instruction INST"),
    "obj": (b"(ccollections\nOrderedDict\no", "instruction OBJ"),
    "ext": (b"\x82\x01", "instruction EXT1|damaged"),
    "newobj of a function": (b"cposix\nsystem\n" + text("touch MARKER") + b"\x85\x81", "asks for posix.system"),
    "newobj_ex": (b"cos\nsystem\n" + text("touch MARKER") + b"\x85}\x92", "asks for os.system"),
    "calling a type": (b"cbuiltins\nint\n" + text("3") + b"\x85R", "calls builtins.int"),
    "calling a result": (b"ccollections\nOrderedDict\n)R)R", "calls a dict"),
    "calling text": (text("os.system") + text("touch MARKER") + b"\x85R", "calls a str"),
    "changing a class": (
        b"ccollections\nOrderedDict\n}" + text("update") + b"K\x01sb",
        "changes collections.OrderedDict",
    ),
    "changing a list": (b"]}b", "changes a list"),
    "tensor of getattr": (b"ctorch._utils\n_rebuild_tensor_v2\n(" + GETATTR + b"K\x00)))NtR", "builtins.getattr"),
    "tensor of a stand-in": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(cargparse\nNamespace\n)\x81K\x00))\x89NtR",
        "does not lie in the file's data",
    ),
    "tensor of negative size": (
        TENSOR.replace(b"K\x02\x85K\x01", b"J\xff\xff\xff\xff\x85K\x01"),
        "not numbers|outside itself",
    ),
    "parameter of text": (call("torch._utils", "_rebuild_parameter", "x"), "no tensor"),
    "array of a list": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\nK\x00\x85C\x01btR",
        "no numpy.ndarray",
    ),
    "array of matrix": (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\nK\x00\x85C\x01btR", "numpy.matrix"),
    "array state": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR}" + text("x") + b"K\x01sb",
        "without shape",
    ),
    "dictionary filled by a call": (b"ccollections\nOrderedDict\n]\x85R", "unusual way"),
    "encode": (call("_codecs", "encode", "x", "zlib"), "unusual spelling"),
    "bytes": (b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R", "unusual spelling"),
    "storage of text": (text("x") + b"Q", "refers to|outside itself"),
    "storage of a function": (
        b"(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu") + b"K\x02tQ",
        "asks for os.system",
    ),
    "deep key": (b"}" + b")" + b"\x85" * 50_000 + b"K\x01s", "tuple as a name"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    evil, message = TRICKS[trick]
    Path("evil.ckpt").write_bytes(FORMS[form](body(evil)))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_foreign("evil.ckpt")
    assert "evil.ckpt" in str(caught.value)
    assert str(caught.value).isprintable()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.ckpt"]


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["beside", "inside", "key", "metadata"])
def test_a_file_that_would_make_a_file(tmp_path: Path, form: str, place: str) -> None:
    marker, path = tmp_path / "made", tmp_path / "evil.ckpt"
    state: dict[Any, Any] = {"net.w": torch.zeros(2) if form != "pickle" else 1}
    content = {"state_dict": state}
    if place == "beside":
        content["callbacks"] = {"x": [Evil(marker)]}
    elif place == "metadata":
        content["hyper_parameters"] = {"opt": Evil(marker)}
    elif place == "inside":
        state["net.evil"] = Evil(marker)
    else:
        state[Evil(marker)] = 1
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")

    with pytest.raises(CheckpointError) as caught:
        read_foreign(path)
    assert re.search(r"asks for (posix|nt)\.system, which is code and not weights", str(caught.value))
    assert "torch.save(model.state_dict()" in str(caught.value)
    assert not marker.exists()
    with pytest.raises(CheckpointError, match="asks for"):
        load_model(str(path))
    assert not marker.exists()
    if form == "pickle" and place == "beside":  # the trap works: Python's own unpickler falls into it
        pickle.loads(path.read_bytes())
        assert marker.exists()


BIG = TENSOR.replace(b"K\x02tQ", b"J\xff\xff\xff\x7ftQ")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (as_zip(body(b"N").replace(TENSOR, BIG)), "2,147,483,647 numbers of 4 bytes, but the file has 8"),
        (as_legacy(body(b"N").replace(TENSOR, BIG), 2**31 - 1), "stated to hold 2,147,483,647 numbers"),
        (as_legacy(body(b"N").replace(TENSOR, BIG), -1), "stated to hold 2,147,483,647 numbers"),
        (as_zip(body(b"N").replace(b"K\x00K\x02\x85K\x01", b"K\x00J\xff\xff\xff\x7f\x85K\x00")), "outside its data"),
        (as_zip(body(b"N").replace(b"K\x00K\x02\x85K\x01", b"K\x01K\x02\x85K\x01")), "outside its data"),
        (as_zip(body(b"N"), bytes(10**6), zipfile.ZIP_DEFLATED), "compressed zip"),
        (b"\x80\x04X\xff\xff\xff\xffabc", "damaged"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc", "damaged"),
        (b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc", "damaged"),
    ],
    ids=["zip", "legacy", "negative", "expanded", "offset", "deflated", "text", "long text", "bytes"],
)  # fmt: skip
def test_more_stated_than_held(tmp_path: Path, written: bytes, message: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(written)
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=message):
        read_foreign(tmp_path / "x.ckpt")
    assert time.perf_counter() - started < 2


def test_one_buffer_for_many_arrays(tmp_path: Path) -> None:
    """Bytes that are stored once and used for a hundred arrays: as many as the file is long, and no more."""
    float32 = b"cnumpy\ndtype\n" + text("f4") + b"\x85R(K\x03" + text("<") + b"NNNtbq\x000"
    for size, fits in ((4, True), (80_000, False)):
        buffer = text("a" * size) + b"q\x010"
        shape = b"J" + struct.pack("<i", size // 4) + b"\x85"
        array = b"cnumpy.core.numeric\n_frombuffer\n(h\x01h\x00" + shape + text("C") + b"tR"
        entries = b"".join(text(f"a{i}") + array for i in range(100))
        path = tmp_path / "x.pkl"
        path.write_bytes(b"\x80\x02" + float32 + buffer + b"}(" + entries + b"u.")
        if fits:
            assert len(read_foreign(path).tensors) == 100
        else:
            with pytest.raises(CheckpointError, match="more data than it has"):
                read_foreign(path)


@pytest.mark.parametrize(
    "evil",
    [
        b"N" + b"\x85" * 50_000,
        b"N" + b"\x85" + b"cresearch\nConfig\nq\x000" + b"q\x010h\x00h\x01\x85R" * 30_000,
        b"N" + b"2\x86" * 60,  # 2^60 values, if anyone walked through them
    ],
    ids=["deep tuples", "deep stand-ins", "tangled"],
)
def test_deep_and_tangled_values_are_harmless(tmp_path: Path, evil: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(as_zip(body(evil)))
    assert list(read_foreign(tmp_path / "x.ckpt").tensors) == ["w"]
