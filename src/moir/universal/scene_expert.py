"""An expert of two steps: another expert restores what is fine, then a bilateral grid undoes what the scene suffers.

Damage happens in this order the other way round: haze and darkness lie in the scene, noise and streaks come after. The
first step is told to leave haze and darkness; the second decides on the whole picture, which the networks that restore
tiles hardly see.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch

from moir.networks.base import PLACE, Context, RestorationNetwork, recall
from moir.networks.bilateral_grid import BilateralGrid
from moir.universal.agreement import instruction

SCENE = "scene_"
"""What the names of the grid's own decisions begin with in the context of a tree."""

DECISIONS = ("features", "embedding")
"""Which they are."""


class SceneExpert(RestorationNetwork):
    """One expert after the other.

    Context: what the first step needs, and ``scene_features`` and ``scene_embedding`` (:func:`scene_context`); for
    tiles :data:`moir.networks.base.PLACE`.

    Args:
        grid: The tree's bilateral grid.
        types: What it is told to undo.
        first: Restores before; None: nothing does.
        told: What ``first`` is told to remove; None: what was found.
    """

    uses_place: ClassVar[bool] = True

    def __init__(
        self,
        grid: BilateralGrid,
        types: Sequence[str],
        first: RestorationNetwork | None = None,
        told: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.first = grid, first
        self.types = tuple(types)
        self.told = None if told is None else tuple(told)
        for part in (grid, first) if first is not None else (grid,):
            self.size_multiple = max(self.size_multiple, part.size_multiple)  # type: ignore[misc]
            self.overlap = max(self.overlap, part.overlap)  # type: ignore[misc]

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`RestorationNetwork.forward`; the context must be given, since it is the tree's."""
        given = {} if context is None else context
        if self.first is not None:
            steering = given
            if self.told is not None:
                steering = {**given, "remove": instruction(self.told).to(x).expand(x.shape[0], -1)}
            x = self.first(x, steering)
        scene = {name: recall(given, SCENE + name, x.shape[0]) for name in DECISIONS}
        scene["remove"] = instruction(self.types).to(x).expand(x.shape[0], -1)
        if PLACE in given:
            scene[PLACE] = given[PLACE]
        return self.grid(x, scene)

    def accelerated(self, make: Callable[[RestorationNetwork], RestorationNetwork | None]) -> RestorationNetwork | None:
        """See :meth:`RestorationNetwork.accelerated`: the first step in its faster form."""
        first = None if self.first is None else make(self.first)
        return None if first is None else SceneExpert(self.grid, self.types, first, self.told).eval()


def scene_context(decided: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a grid decided, under the names that it has in the context of a tree."""
    return {SCENE + name: decided[name] for name in DECISIONS}
