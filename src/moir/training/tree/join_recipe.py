"""The recipe of a router that learns anew after experts joined the shipped tree."""

from pathlib import Path

from moir.training.recipe import Positive
from moir.training.tree.recipe import OnCleanPictures, Report, RouterStage


class JoinRecipe(OnCleanPictures):
    """Training of the router of a tree that an expert joined; see :mod:`moir.training.tree.rejoin`.

    ``data``: clean pictures, and the damage that the other leaves are for.
    """

    start: str
    """The tree: weights that ``moir expert add`` wrote."""
    leaf: str | None = None
    """The leaf whose samples are made or given, by its name; None: every leaf that waits."""
    pairs: str | None = None
    """Folder with ``input`` and ``target``: the damage of the leaf. None: the damage of its types is made."""
    own: Positive = 400
    """Samples of each such leaf."""
    router: RouterStage = RouterStage(samples=2000)
    """How the router is trained; ``sure`` stays what it is in the tree."""

    def _train(self, folder: str | Path, report: Report) -> Path:
        from moir.training.tree.rejoin import train_join

        return train_join(self, folder, lambda done, total: report(done, total, {}))
