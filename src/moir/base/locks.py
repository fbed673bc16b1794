"""Two runs must not write to one place."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moir.base.errors import OutputExistsError

try:
    import fcntl
except ImportError:  # Windows has no flock; two runs in one place are then not noticed
    fcntl = None  # type: ignore[assignment]


@contextmanager
def held(path: Path, *, alone: bool, patience: float = 0.0, what: str | Path | None = None) -> Iterator[None]:
    """Hold a file: a run takes it alone at first, then shares it with its own workers.

    The lock is the system's (``flock``): it ends with the process, however that ends. Where there is none (Windows,
    some network drives), nothing is held.

    Args:
        path: The file; it is made if it is missing, and so is its folder. Nothing is written to it.
        alone: Wait until nobody else holds it, then share it. Otherwise share it at once.
        patience: How long to wait, seconds.
        what: What the message calls it; None: the path.

    Raises:
        OutputExistsError: Another run is at work.
    """
    if fcntl is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        deadline = time.monotonic() + patience
        while alone:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OutputExistsError(
                        f"another run is at work with {what or path}; wait for it, or give another --output"
                    ) from None
                time.sleep(0.1)
            except OSError:  # the drive has no locks
                break
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
