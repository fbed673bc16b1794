"""The outer forms of foreign checkpoints: torch's zip files, torch's files from before 1.6, and plain pickles."""

import hashlib
import io
import mmap
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from moir.base.errors import CheckpointError
from moir.checkpoints.allowed import STORAGES
from moir.checkpoints.pickles import Machine
from moir.checkpoints.records import Name, Storage
from moir.checkpoints.tensors import WIDTHS

ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C  # the first value in a legacy torch file
LEGACY_VERSION = 1001
JITTOR = b"HCAJSLHD"  # Jittor ends its pickles with a SHA-1 of the pickle and this


@dataclass
class Opened:
    """A file's content.

    Attributes:
        content: What it holds, in plain values and records.
        data: Gives the bytes of a storage.
        stand_ins: Classes whose objects were replaced.
        form: What kind of file it is.
    """

    content: Any
    data: Callable[[Storage], bytes]
    stand_ins: set[str]
    form: str


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a checkpoint; the data can be had until the block ends.

    Raises:
        CheckpointError: It is of another form, or asks for something that is not data.
        Exception: Many kinds, if the file is damaged; callers turn them all into one.
    """
    with path.open("rb") as file:
        head = file.read(512)
        _check_head(head)
        if head.startswith(ZIP):
            with zipfile.ZipFile(file) as archive:
                yield _open_zip(archive, path.stat().st_size)
        else:
            # Mapped: nothing is read before it is needed, and no length that the file states is trusted.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield _open_mapped(mapped)


def _check_head(head: bytes) -> None:
    if not head:
        raise CheckpointError("it is empty; get it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError("it is a Git LFS pointer, not the file itself; get the file with: git lfs pull")
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError("it is a web page, not a checkpoint; the download went wrong")
    if head[257:262] == b"ustar":
        raise CheckpointError(
            "it is a tar file; if torch wrote it (before 2017), load and save it with torch 0.4 to 2.5"
        )


def _open_zip(archive: zipfile.ZipFile, size: int) -> Opened:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries.values()):
        raise CheckpointError("it is a compressed zip file; torch's own are not. Unpack it first")
    if len(entries) != len(archive.infolist()) or sum(entry.file_size for entry in entries.values()) > size:
        raise CheckpointError("it states more data than it has, or states it twice")
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("it is a zip file but not one of torch's")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise CheckpointError("it is a TorchScript program; save its state_dict() where you can run it")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise CheckpointError("it was written on a big-endian machine, which moir does not read")
    machine = Machine(_storage)
    content = machine.read(io.BytesIO(archive.read(pickles[0])))

    def data(storage: Storage) -> bytes:
        entry = entries.get(f"{root}data/{storage.key}")
        have = entry.file_size if entry else 0
        if entry is None or have != storage.count * WIDTHS[storage.kind]:
            raise CheckpointError(
                f"storage {storage.key!r} is stated to hold {storage.count:,} numbers of {WIDTHS[storage.kind]} bytes, "
                f"but the file has {have:,} bytes of it: it is incomplete, or was tampered with"
            )
        return archive.read(entry)

    return Opened(content, data, machine.stand_ins, "torch")


def _open_mapped(mapped: mmap.mmap) -> Opened:
    stream = cast(IO[bytes], mapped)
    machine = Machine()
    first = machine.read(stream)
    if type(first) is not int or first != MAGIC:
        _check_jittor(mapped)
        return Opened(first, _no_data, machine.stand_ins, "pickle")
    version, system = machine.read(stream), machine.read(stream)
    if version != LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("it is a legacy torch file of an unknown version, or of a big-endian machine")
    stated: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        found = _storage(identity)
        first = stated.setdefault(found.key, found)
        if (first.kind, first.count) != (found.kind, found.count):
            raise CheckpointError(f"it states storage {found.key!r} in two ways")
        return found

    machine.persistent = storage
    content = machine.read(stream)
    machine.persistent = None
    places: dict[str, int] = {}
    for key in machine.read(stream):
        wanted = stated.get(key) if type(key) is str else None
        if wanted is None:
            raise CheckpointError("it is damaged: it lists data that nothing refers to")
        count = int.from_bytes(mapped.read(8), "little", signed=True)
        length = count * WIDTHS[wanted.kind]
        if count != wanted.count or not 0 <= length <= len(mapped) - mapped.tell():
            raise CheckpointError(
                f"storage {key!r} is stated to hold {wanted.count:,} numbers of {WIDTHS[wanted.kind]} bytes, but the "
                "file does not have them: it is incomplete, or was tampered with"
            )
        places[key] = mapped.tell()
        mapped.seek(length, 1)

    def data(storage: Storage) -> bytes:
        start = places[storage.key]
        return mapped[start : start + storage.count * WIDTHS[storage.kind]]

    return Opened(content, data, machine.stand_ins, "torch before 1.6")


def _storage(identity: Any) -> Storage:
    """The record of a storage: ("storage", type, key, device, count[, view]); the device does not matter here."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        what = identity[0] if type(identity) is tuple and identity and type(identity[0]) is str else "something unknown"
        raise CheckpointError(f"it refers to a {what[:40]} where only tensors are read; save the state_dict() instead")
    _, kind, key, _, count = identity[:5]
    if len(identity) == 6 and identity[5] is not None:
        raise CheckpointError("it holds views of storages in a form from before torch 0.4, which moir does not read")
    if not isinstance(kind, Name) or kind.path not in STORAGES or type(key) is not str:
        raise CheckpointError("it holds numbers of a kind that moir does not read")
    if type(count) is not int or count < 0:
        raise CheckpointError(f"storage {key[:40]!r} has no size")
    return Storage(STORAGES[kind.path], key, count)


def _no_data(storage: Storage) -> bytes:
    raise CheckpointError("it has no storages")


def _check_jittor(mapped: mmap.mmap) -> None:
    """Check the SHA-1 that Jittor puts behind its pickles."""
    if mapped[-len(JITTOR) :] != JITTOR:
        return
    with memoryview(mapped) as whole, whole[: -20 - len(JITTOR)] as pickled:
        digest = hashlib.sha1(pickled, usedforsecurity=False).digest()
    if digest != mapped[-20 - len(JITTOR) : -len(JITTOR)]:
        raise CheckpointError("its checksum is wrong: it is damaged; get it again")
