"""Keeps the collector of garbage away from what commands import."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_to_keep() -> Iterator[None]:
    """For importing what stays to the end of the process, torch above all.

    While modules are imported, nearly everything that is made stays: collections would walk through ever more of it
    and find nothing. Afterwards a full one would do so again, as would the interpreter's last one, so what is there
    is left out of all to come. Together that is a tenth to a fifth of the time of ``import torch``.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
