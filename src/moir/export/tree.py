"""The shipped tree of experts as graphs: one that decides, and one per expert.

Why one graph per expert, and not one graph that picks the expert's weights by number: a convolution whose weights
depend on the picture would have to be repeated for each picture of a batch, engines could not lay out its weights
beforehand, and experts may have more blocks than the shared network. What they share is in one file all the same
(:mod:`moir.export.sharing`).
"""

import torch
from torch import nn

from moir.base.names import TYPES
from moir.networks.base import Context
from moir.universal.compact_tree import CompactUniRestorer

EXPERT = "expert"
"""The context's tensor that holds each picture's expert, by number."""


class Decision(nn.Module):
    """What :class:`~moir.universal.compact_tree.CompactUniRestorer` decides about pictures, in tensor operations.

    The network looks up in Python what each expert stands for, which a graph cannot; here that is in tables.

    Args:
        network: The network.
    """

    table: torch.Tensor
    least: torch.Tensor
    told: torch.Tensor
    is_told: torch.Tensor

    def __init__(self, network: CompactUniRestorer) -> None:
        super().__init__()
        self.network = network
        tree = network.tree
        own = [tree.instruction(number) for number in range(tree.experts)]
        given = [network.told(number) for number in range(tree.experts)]
        least = [[network.sure.get(t, 0.0) if t in types else 0.0 for t in TYPES] for types in own]
        told = [[float(t in types) for t in TYPES] + [1.0] for types in given]
        self.register_buffer("table", tree.table())
        self.register_buffer("least", torch.tensor(least, dtype=torch.float64))
        self.register_buffer("told", torch.tensor(told))
        self.register_buffer("is_told", torch.tensor([bool(types) for types in given]))

    def analyse(self, picture: torch.Tensor) -> Context:
        """Map pictures (B, 3, H, W) to the context of :meth:`CompactUniRestorer.analyse`."""
        network = self.network
        representation = network.extractor(picture)
        presence, degree = network.extractor.estimate(representation)
        base = network.base.analyse(picture)
        route = network.route(network.extractor.place(representation))
        return {
            "presence": presence,
            "degree": degree,
            "embedding": base["embedding"],
            "found": base["remove"],
            "leaf": route.leaf,
            "leaf_logits": route.leaf_logits,
            "level_logits": route.level_logits,
            "mu": route.mu,
            "log_variance": route.log_variance,
            "uncertainty": (0.5 * route.log_variance).exp().mean(dim=1),
            **self.choose(presence, route.leaf, route.level, base["remove"]),
        }

    def choose(
        self, presence: torch.Tensor, leaf: torch.Tensor, level: torch.Tensor, found: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The level after the estimate was asked, the expert there, and what it is told to remove.

        Args:
            presence: (B, 7), calibrated logits.
            leaf, level: (B,), the router's choice.
            found: (B, 8), what the shared network would remove by itself.

        Returns:
            ``level`` (B,), ``expert`` (B,), ``remove`` (B, 8).
        """
        unsure = (torch.sigmoid(presence).double() < self.least[self.table[leaf, level]]).any(dim=1)
        level = level.masked_fill(unsure, 0)
        expert = self.table[leaf, level]
        remove = torch.where(self.is_told[expert][:, None], self.told[expert], found)
        return {"level": level, "expert": expert, "remove": remove}


def graphs_of(network: CompactUniRestorer) -> list[int | None]:
    """By the number of each expert, the number of the one whose graph restores; None: pictures stay as they are."""
    tree = network.tree
    return [None if tree.is_clean(number) else network.owner_of(number) for number in range(tree.experts)]
