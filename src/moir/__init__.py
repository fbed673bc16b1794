"""moir: mixture-of-experts image restoration.

>>> import moir
>>> restorer = moir.load()                          # doctest: +SKIP
>>> restorer("photo.jpg").save("restored.jpg")      # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moir.base.errors import MoirError

if TYPE_CHECKING:
    from moir.models import create_model, list_models
    from moir.restore import Restoration, Restorer, load

__version__ = "0.1.0"

# Loaded on first use, so that `import moir` does not import torch.
_LAZY = {
    "create_model": "moir.models",
    "list_models": "moir.models",
    "Restoration": "moir.restore",
    "Restorer": "moir.restore",
    "load": "moir.restore",
}

__all__ = ["MoirError", "Restoration", "Restorer", "create_model", "list_models", "load"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'moir' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
