"""Networks that estimate which damage there is, and can be told which to remove."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from moir.base.names import TYPES, check_name
from moir.networks.base import Context, RestorationNetwork


class InstructedNetwork(RestorationNetwork):
    """A network steered by how far each type of damage shall be removed.

    Its context has ``remove`` (B, 8): by type from 0 (leave it) to 1 (remove it), and last 1 if that was an
    instruction, 0 if it is the network's own estimate (:func:`by_estimate`).
    """

    estimates: ClassVar[bool] = True

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """The same context, with the instruction to remove these types of damage and leave the rest.

        Args:
            context: From :meth:`analyse`.
            types: Degradation types (``rain``, ...).

        Raises:
            UnknownNameError: Not a degradation type.
        """
        wanted = [check_name(type_, TYPES, "degradation type") for type_ in types]
        remove = context["remove"]
        return {**context, "remove": instruction(wanted).to(remove).expand_as(remove)}


def by_estimate(presence: torch.Tensor) -> torch.Tensor:
    """What to remove if nothing was said: each type as far as it is probably there.

    Args:
        presence: (B, 7), logits. No gradient goes through them: the estimate steers, but restoration must not bend it,
            so that probabilities stay calibrated.

    Returns:
        (B, 8), the last 0.

    Examples:
        >>> by_estimate(torch.zeros(1, 7)).tolist()
        [[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0]]
    """
    remove = torch.sigmoid(presence.detach())
    return torch.cat([remove, torch.zeros_like(remove[:, :1])], 1)


def instruction(types: Sequence[str]) -> torch.Tensor:
    """Which types to remove, and a last 1, (8,), as such networks take it.

    Examples:
        >>> instruction(["noise", "haze"]).tolist()
        [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    return torch.tensor([float(type_ in types) for type_ in TYPES] + [1.0])
