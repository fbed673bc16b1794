"""What a result depends on: versions, options, and every file that was read."""

import hashlib
import platform
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import moir
from moir.evaluation.methods import Method, Predictions


def versions() -> dict[str, str]:
    """Versions of everything that takes part in a score."""
    packages = ("torch", "numpy", "scikit-image", "pillow")
    return {
        "moir": moir.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


class Hashes:
    """SHA-256 of files, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """The SHA-256 of a file, in hexadecimal; ``unreadable`` if it cannot be opened."""
        with self._lock:
            if path not in self._known:
                try:
                    with path.open("rb") as file:
                        self._known[path] = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError:
                    self._known[path] = "unreadable"
            return self._known[path]


def account_of(method: Method | Predictions, hashes: Hashes) -> dict[str, Any]:
    """What a method is: its name, kind, options, and the SHA-256 of the files it was made from.

    Methods may have ``files`` (paths) and ``options()`` (plain values); both are optional.
    """
    options = getattr(method, "options", None)
    account: dict[str, Any] = {"name": method.name, "kind": type(method).__name__}
    if isinstance(method, Predictions):
        account["folder"] = str(method.folder)
    if callable(options):
        account["options"] = options()
    account["files"] = {str(path): hashes.of(Path(path)) for path in getattr(method, "files", ())}
    return account
