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
        self._made: dict[int, tuple[RestorationNetwork, RestorationNetwork]] = {}

    estimates: ClassVar[bool] = True

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`RestorationNetwork.analyse`."""
        return self.network.analyse(x)

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """See :meth:`RestorationNetwork.instruct`."""
        return self.network.instruct(context, types)

    def account(self, context: Context) -> list[tuple[str, str]]:
        """See :meth:`RestorationNetwork.account`."""
        return self.network.account(context)

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`RestorationNetwork.forward`."""
        check_pictures(x)
        context = self.analyse(x) if context is None else context
        return self.network.restore_routed(x, context, lambda number: self._faster(self.network.expert(number)))

    def _faster(self, expert: RestorationNetwork) -> RestorationNetwork:
        """An expert's faster form; one that several are made of is made once."""
        if id(expert) not in self._made:
            faster = expert.accelerated(self._faster) or self._make(expert) or expert
            self._made[id(expert)] = (expert, faster)  # holding the expert keeps its id its own
        return self._made[id(expert)][1]
