"""What every adapter offers: a small module beside a frozen one, which can be switched off and taken out again."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

Projected = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values, or what they are projected from."""


class Switchable(nn.Module):
    """Base of all adapters.

    Attributes:
        enabled: Whether it acts. Switched by :func:`moir.adapters.set_active`.
        label: Name of the attachment that it belongs to.
    """

    enabled: bool = True
    label: str = ""


class Adapter(Switchable):
    """Changes what one place of a frozen network gives out; at first, nothing."""

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the place's output, from the place's input ``x``."""
        raise TypeError(f"{type(self).__name__} does not define change")

    def adapt(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The place's output with the adapter: from its input ``x`` and its own output ``y``."""
        return y + self.change(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What a network with a place for adapters adds: the change, or 0 (a scalar) if switched off."""
        return self.change(x) if self.enabled else x.new_zeros(())


class ProjectionAdapter(Switchable):
    """Changes the fused projection of an attention to queries, keys and values; at first, nothing."""

    def project(self, projected: Projected, inputs: Projected) -> Projected:
        """The adapted (q, k, v), from (q, k, v) as projected and the inputs they were projected from, (..., dim)."""
        raise TypeError(f"{type(self).__name__} does not define project")

    def forward(self, projected: Projected, inputs: Projected) -> Projected:
        """What the attention goes on with."""
        return self.project(projected, inputs) if self.enabled else projected


@runtime_checkable
class Mergeable(Protocol):
    """An adapter that is a change of weights, and can be written into them."""

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight and bias that do what the frozen ones and the adapter do together."""


class Several(nn.ModuleDict):
    """Adapters from several attachments at one place, by the attachments' names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of the changes."""
        total = x.new_zeros(())
        for adapter in self.values():
            total = total + adapter(x)
        return total


class SeveralProjections(nn.ModuleDict):
    """The same for :class:`ProjectionAdapter`."""

    def forward(self, projected: Projected, inputs: Projected) -> Projected:
        """One after the other."""
        for adapter in self.values():
            projected = adapter(projected, inputs)
        return projected
