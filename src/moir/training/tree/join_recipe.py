"""The recipe of a router that learns anew after experts joined the shipped tree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import field_validator

from moir.training.recipe import Data, Positive, Section
from moir.training.tree.recipe import RouterStage, check_cpu, reporter


class JoinRecipe(Section):
    """Training of the router of a tree that an expert joined; see :mod:`moir.training.tree.rejoin`."""

    name: str
    start: str
    """The tree: weights that ``moir expert add`` wrote."""
    leaf: str | None = None
    """The leaf whose samples are made or given, by its name; None: every leaf that waits."""
    pairs: str | None = None
    """Folder with ``input`` and ``target``: the damage of the leaf. None: the damage of its types is made."""
    own: Positive = 400
    """Samples of each such leaf."""
    data: Data
    """Clean pictures, and the damage that the other leaves are for; ``patch`` is set by ``router.size``."""
    router: RouterStage = RouterStage(samples=2000)
    """How the router is trained; ``sure`` stays what it is in the tree."""
    seed: int = 0
    log_every: Positive = 20

    @field_validator("data")
    @classmethod
    def _clean_pictures(cls, data: Data) -> Data:
        if not data.folders:
            raise ValueError("what the other leaves are for is made of clean pictures: give data.folders")
        return data

    def run(
        self, folder: str | Path, *, device: str | None = None, on_step: Callable[[Any], None] | None = None
    ) -> Path:
        """Train the router; see :func:`moir.training.tree.rejoin.train_join`.

        Raises:
            DeviceError: Another device than the CPU is asked for.
        """
        from moir.training.tree.rejoin import train_join

        check_cpu(device)
        report = reporter(on_step)
        return train_join(self, folder, lambda done, total: report(done, total, {}))
