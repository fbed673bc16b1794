"""The last word on which expert restores: the router's choice, as far as the estimate agrees with it.

An expert does much harm to a picture that does not have the damage it is for: brightened twice, or haze removed that
is not there. So two must agree that it is there, the router and the calibrated estimate. Everything is looked up in
tables, so that the decision can be exported as a graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from moir.base.names import TYPES, check_name
from moir.networks.instructed import instruction
from moir.universal.router import Route, prune
from moir.universal.tree import Tree


class Agreement(nn.Module):
    """Which expert restores a picture, and what it is told to remove.

    Args:
        tree: The tree.
        told: What each expert is told to remove in auto mode, by its number; empty: what was found.
        sure: Least calibrated probability of a type at which an expert of this one type is let loose, per type; where
            the estimate is less sure, the coarsest expert restores.
        sure_mixed: The same for leaves of several types, all of which must be probable enough; where they are not, the
            router's next best leaf is taken.
        believed: Calibrated probability from which a type is taken to be there: a leaf must be for all such types, if
            there is one, and then the coarsest expert does not restore for the router's doubts alone; none of clean
            pictures is taken in any case. None: the router alone chooses among leaves and levels.
        alone: Calibrated probability of any other type from which an expert of one type does not restore, since it
            would leave that: the coarsest expert does. For a type in ``sure_mixed`` what is asked for there, if it is
            more. None: it may leave it.
        finest: Types whose leaves, alone or with others, are restored by their finest expert, if not by the coarsest:
            where that is made of more than the one in between, or holds back by itself where it is not certain.
        certain: Least calibrated probability at which a type counts where several are removed in steps; others:
            ``believed``, or a half.
        steps: What each of the steps is told to remove that one more expert takes, beyond those of the tree: where the
            coarsest would restore, and two or more of them are certainly needed; and where no leaf is for just what
            the user said. None: there is none.

    Raises:
        UnknownNameError: Not a degradation type.
    """

    table: torch.Tensor
    least: torch.Tensor
    least_mixed: torch.Tensor
    least_other: torch.Tensor
    told: torch.Tensor
    is_told: torch.Tensor
    is_clean: torch.Tensor
    is_for: torch.Tensor
    is_finest: torch.Tensor
    least_certain: torch.Tensor
    is_of_step: torch.Tensor
    others: torch.Tensor

    def __init__(
        self,
        tree: Tree,
        told: Sequence[Sequence[str]],
        sure: Mapping[str, float] | None = None,
        sure_mixed: Mapping[str, float] | None = None,
        believed: float | None = None,
        alone: float | None = None,
        finest: Sequence[str] = (),
        certain: Mapping[str, float] | None = None,
        steps: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        for type_ in (*(sure or {}), *(sure_mixed or {}), *finest, *(certain or {})):
            check_name(type_, TYPES, "degradation type")
        single = [tree.instruction(number) for number in range(tree.experts)]
        mixed = [leaf.types if len(leaf.types) > 1 else () for leaf in tree.leaves]
        tables = {
            "table": tree.table(),
            "least": torch.tensor([[(sure or {}).get(t, 0.0) * (t in types) for t in TYPES] for types in single]),
            "least_mixed": torch.tensor(
                [[(sure_mixed or {}).get(t, 0.0) * (t in types) for t in TYPES] for types in mixed]
            ),
            "least_other": torch.tensor([max(alone or 0.0, (sure_mixed or {}).get(t, 0.0)) for t in TYPES]),
            "least_certain": torch.tensor(
                [(certain or {}).get(t, 0.5 if believed is None else believed) for t in TYPES]
            ),
            "is_of_step": torch.tensor([[float(t in types) for t in TYPES] for types in steps or []]).view(
                -1, len(TYPES)
            ),
            "told": torch.stack([instruction(types) for types in told]),
            "is_told": torch.tensor([bool(types) for types in told]),
            "others": torch.tensor([[bool(types) and t not in types for t in TYPES] for types in single]),
            "is_clean": torch.tensor([leaf.is_clean for leaf in tree.leaves]),
            "is_for": torch.tensor([[t in leaf.types for t in TYPES] for leaf in tree.leaves]),
            "is_finest": torch.tensor([bool(set(leaf.types) & set(finest)) for leaf in tree.leaves]),
        }
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)  # made of options, which the card keeps
        self.believed, self.alone = believed, alone
        self.tree, self.has_steps = tree, steps is not None

    def agreed(self, presence: torch.Tensor, route: Route) -> Route:
        """The router's choice, changed where the estimate does not agree with it.

        Args:
            presence: (B, 7), calibrated logits.
            route: What the router chose for these B pictures.
        """
        probability = torch.sigmoid(presence)
        doubted = (probability[:, None] < self.least_mixed).any(dim=2)
        level = route.level
        if self.believed is not None:
            there = probability >= self.believed
            lacking = (there[:, None] & ~self.is_for).any(dim=2)
            is_any, has_all = there.any(dim=1, keepdim=True), ~(lacking | doubted).all(dim=1, keepdim=True)
            doubted = doubted | (has_all & lacking) | (~has_all & is_any & self.is_clean)
            level = torch.where((is_any & has_all)[:, 0], level.clamp(min=1), level)
        leaf = prune(route.leaf_logits, doubted).argmax(1)
        leaf = torch.where(doubted.gather(1, route.leaf[:, None])[:, 0], leaf, route.leaf)
        level = self.finer(leaf, level)
        expert = self.table[leaf, level]
        unsure = (probability < self.least[expert]).any(dim=1)
        if self.alone is not None:
            left = probability >= self.least_other
            unsure = unsure | (left & self.others[expert]).any(dim=1)
        return replace(route, leaf=leaf, level=level.masked_fill(unsure, 0))

    def finer(self, leaf: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The levels, (B,), but the finest for leaves of the types ``finest`` that the coarsest does not restore.

        Args:
            leaf, level: (B,).
        """
        return torch.where(self.is_finest[leaf] & (level > 0), self.table.shape[1] - 1, level)

    def told_place(
        self, leaf_logits: torch.Tensor, level_logits: torch.Tensor, types: Sequence[str], waits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Where in the tree an instruction leads: leaf and level, (B,).

        With steps, a leaf for just these types; without, one for these or some of them. None: there is none.

        Args:
            leaf_logits, level_logits: Of the router, (B, leaves) and (B, levels).
            types: Degradation types to remove.
            waits: (leaves,) bool, leaves that nothing chooses.

        Raises:
            UnknownNameError: Not a degradation type.
        """
        wanted = {check_name(type_, TYPES, "degradation type") for type_ in types}
        is_for = [set(leaf.types) for leaf in self.tree.leaves]
        fits = [own == wanted if self.has_steps else bool(own) and own <= wanted for own in is_for]
        mask = ~torch.tensor(fits) | waits
        if bool(mask.all()):
            return None
        leaf = prune(leaf_logits, mask).argmax(1)
        level = prune(level_logits, self.tree.level_mask(mask)).argmax(1)
        return leaf, self.finer(leaf, level)

    def chosen(
        self, leaf: torch.Tensor, level: torch.Tensor, otherwise: torch.Tensor, presence: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The experts of these places in the tree, and what each is told to remove.

        Args:
            leaf, level: (B,).
            otherwise: (B, 8), for experts that are told nothing.
            presence: (B, 7), calibrated logits, by which the steps may be taken instead; None: they are not.

        Returns:
            ``expert`` (B,) and ``remove`` (B, 8).
        """
        expert = self.table[leaf, level]
        remove = torch.where(self.is_told[expert][:, None], self.told[expert].to(otherwise), otherwise)
        if presence is not None and self.has_steps:
            certain = (torch.sigmoid(presence) >= self.least_certain).to(self.is_of_step)
            needed = (certain @ self.is_of_step.T > 0).sum(1)
            expert = torch.where((needed > 1) & (level == 0), self.tree.experts, expert)
        return {"expert": expert, "remove": remove}
