"""Files appear whole or not at all, and nothing is replaced unless that was asked for."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moir.base.errors import OutputExistsError


def check_absent(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return ``path`` as a Path, or refuse because something is there already.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is false.
    """
    target = Path(path)
    if not overwrite and (target.exists() or target.is_symlink()):
        raise OutputExistsError(f"{target} exists already; give another name, or allow overwriting")
    return target


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder, which becomes ``path`` if the block ends well.

    The folder is made if it is missing. If the block raises (Ctrl-C too), the temporary file is removed and ``path``
    is as it was. The temporary name keeps the suffix, since some writers choose the format by it.

    Args:
        path: Where the file shall be.
        overwrite: Replace a file that is there; otherwise it is an error, also if it appears meanwhile.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is false.
    """
    target = check_absent(path, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}.", suffix=f".part{target.suffix}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        if overwrite:
            temporary.replace(target)
        else:
            _move_if_absent(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write a whole file atomically; see :func:`atomic_path`."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> None:
    """Write a whole UTF-8 text file atomically; see :func:`atomic_path`."""
    write_bytes(path, text.encode(), overwrite=overwrite)


def _move_if_absent(temporary: Path, target: Path) -> None:
    # A hard link fails if the target exists, without a moment in between; some file systems have no hard links.
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise OutputExistsError(f"{target} appeared while it was being written; it was left alone") from None
    except OSError:
        check_absent(target)
        temporary.replace(target)


def _umask() -> int:
    # mkstemp makes private files; the finished one gets what open() would have given it.
    current = os.umask(0)
    os.umask(current)
    return current
