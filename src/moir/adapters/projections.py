"""Adapters of a fused projection to queries, keys and values: one weight (3 dim, dim) without a layer of its own."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from moir.adapters.base import Projected, ProjectionAdapter
from moir.adapters.low_rank import FacTCore, check_rank
from moir.base.errors import InvalidValueError


class ProjectionLoRA(ProjectionAdapter):
    """LoRA of some of queries, keys and values (arXiv 2106.09685, section 4.2: queries and values).

    Args:
        dim: Channels.
        rank: Rank of each change.
        alpha: Each change is scaled by ``alpha / rank``; None: by 1.
        parts: Which are changed, some of ``qkv``.

    Raises:
        InvalidValueError: A rank below 1, or parts that are not of ``qkv``.
    """

    def __init__(self, dim: int, rank: int, alpha: float | None = None, parts: str = "qv") -> None:
        super().__init__()
        check_rank(rank)
        if not parts or set(parts) - set("qkv"):
            raise InvalidValueError(f"parts={parts!r}: name some of 'q', 'k' and 'v'")
        self.scaling = 1.0 if alpha is None else alpha / rank
        self.down = nn.ParameterDict({part: nn.Parameter(torch.empty(rank, dim)) for part in parts})
        self.up = nn.ParameterDict({part: nn.Parameter(torch.zeros(dim, rank)) for part in parts})
        for down in self.down.values():
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def project(self, projected: Projected, inputs: Projected) -> Projected:
        """See :meth:`ProjectionAdapter.project`."""
        q, k, v = (
            y + self.scaling * F.linear(F.linear(x, self.down[part]), self.up[part]) if part in self.down else y
            for part, y, x in zip("qkv", projected, inputs, strict=True)
        )
        return q, k, v

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`moir.adapters.base.Mergeable`."""
        zero = torch.zeros_like(weight[: weight.shape[1]])
        changes = [self.up[part] @ self.down[part] if part in self.down else zero for part in "qkv"]
        return weight + self.scaling * torch.cat(changes), bias


class ProjectionScaleShift(ProjectionAdapter):
    """SSF of queries, keys and values (arXiv 2210.08823, section 3.2).

    Args:
        dim: Channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3 * dim))
        self.shift = nn.Parameter(torch.zeros(3 * dim))

    def project(self, projected: Projected, inputs: Projected) -> Projected:
        """See :meth:`ProjectionAdapter.project`."""
        q, k, v = (
            y * scale + shift
            for y, scale, shift in zip(projected, self.scale.chunk(3), self.shift.chunk(3), strict=True)
        )
        return q, k, v

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`moir.adapters.base.Mergeable`."""
        return weight * self.scale[:, None], self.shift if bias is None else bias * self.scale + self.shift


class ProjectionFacT(ProjectionAdapter):
    """Three slices of a shared decomposition (FacT, arXiv 2212.03145), for queries, keys and values.

    Args:
        core: What is shared; registered once, at the network, and not here.
    """

    def __init__(self, core: FacTCore) -> None:
        super().__init__()
        self._shared = (core,)  # in a tuple, so that it is not registered once more
        self.slices = nn.Parameter(torch.randn(3, core.core.shape[0]))

    def project(self, projected: Projected, inputs: Projected) -> Projected:
        """See :meth:`ProjectionAdapter.project`."""
        weights = self._shared[0].change(self.slices).chunk(3)
        q, k, v = (y + F.linear(x, w) for y, x, w in zip(projected, inputs, weights, strict=True))
        return q, k, v

    def effective(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`moir.adapters.base.Mergeable`."""
        return weight + self._shared[0].change(self.slices), bias
