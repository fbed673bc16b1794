"""The shipped tree with faster forms of its experts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch

from moir.networks.base import Context, RestorationNetwork, check_pictures

if TYPE_CHECKING:
    from moir.universal.compact_tree import CompactUniRestorer


class AcceleratedTree(RestorationNetwork):
    """The same decisions, with faster forms of the experts, each made when it is first chosen.

    Args:
        network: The tree.
        make: Gives the faster form of a network, or None if there is none.
    """

    def __init__(
        self, network: "CompactUniRestorer", make: Callable[[RestorationNetwork], RestorationNetwork | None]
    ) -> None:
        super().__init__()
        self.network, self.options = network, network.options
        self.size_multiple, self.overlap = network.size_multiple, network.overlap  # type: ignore[misc]
        self.uses_place = network.uses_place  # type: ignore[misc]
        self._make = make
        self._made: dict[int, RestorationNetwork] = {}

    estimates: ClassVar[bool] = True

    def analyse(self, x: torch.Tensor) -> Context:
        return self.network.analyse(x)

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        return self.network.instruct(context, types)

    def account(self, context: Context) -> list[tuple[str, str]]:
        return self.network.account(context)

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        check_pictures(x)
        return self.network.restore_routed(x, self.analyse(x) if context is None else context, self._expert)

    def _expert(self, number: int) -> RestorationNetwork:
        owner = self.network.owner_of(number)
        if owner not in self._made:
            expert = self.network.expert(owner)
            self._made[owner] = self._make(expert) or expert
        return self._made[owner]
