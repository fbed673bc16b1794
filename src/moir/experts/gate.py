"""The gate of MoCE-IR: which experts a picture goes to, and how much each of them counts."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.experts.balance import balance_loss
from moir.layers.precision import at_least_float32

RoutingNoise = Literal["training", "always", "never"]
ComplexityScale = Literal["max", "min"]


class Routing(NamedTuple):
    """What a gate decided for a batch.

    Attributes:
        experts: (B, k) int64, the chosen experts, the most probable first.
        gates: (B, k), the softmax values of the chosen experts; they are not renormalised to sum to 1.
        loss: The balance loss, a scalar; None unless it was asked for.
    """

    experts: torch.Tensor
    gates: torch.Tensor
    loss: torch.Tensor | None


def relative_complexity(costs: Sequence[int], scale: ComplexityScale) -> torch.Tensor:
    """Experts' costs (parameter counts) over the largest ("max") or the smallest ("min") of them.

    Returns:
        (E,) float32.
    """
    check_name(scale, get_args(ComplexityScale), "complexity_scale")
    return torch.tensor([cost / (max(costs) if scale == "max" else min(costs)) for cost in costs])


class ExpertGate(nn.Module):
    """Noisy top-k gate on pooled features and a picture-wide embedding (MoCE-IR, arXiv 2411.18466, section 3.2).

    ``logits = gate(avgpool(features)) + freq_gate(embedding)``; both linear, without bias. Where noise is on, a
    Gaussian of standard deviation ``1 / num_experts`` is added before the softmax. Everything here is computed in
    float32, so that half precision moves a choice as seldom as possible.

    Args:
        dim: Channels C of the features.
        embedding_dim: Channels E of the picture-wide embedding.
        costs: One cost (parameter count) per expert.
        topk: Experts per picture, 1 to their number.
        with_complexity: Whether the importance loss is weighted by the experts' complexity (the paper's bias towards
            cheap experts).
        complexity_scale: ``"max"`` or ``"min"``, see :func:`relative_complexity`.

    Attributes:
        name: The gate's name in its network, under which decisions are recorded; the network sets it.

    Raises:
        InvalidValueError: ``topk`` is not between 1 and the number of experts.
    """

    complexity: torch.Tensor

    def __init__(
        self,
        dim: int,
        embedding_dim: int,
        costs: Sequence[int],
        topk: int = 1,
        with_complexity: bool = False,
        complexity_scale: ComplexityScale = "max",
    ) -> None:
        super().__init__()
        if not 1 <= topk <= len(costs):
            raise InvalidValueError(f"topk is {topk}, but must be between 1 and the {len(costs)} experts")
        self.name = ""
        self.topk = topk
        self.with_complexity = with_complexity
        self.noise_std = 1.0 / len(costs)
        self.register_buffer("complexity", relative_complexity(costs, complexity_scale))
        # The numbers make the published names: gate.2.weight.
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, len(costs), bias=False))
        self.freq_gate = nn.Linear(embedding_dim, len(costs), bias=False)

    def logits(self, features: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Clean logits (B, experts) from features (B, C, H, W) and embedding (B, E)."""
        with torch.autocast(features.device.type, enabled=False):
            pooled = at_least_float32(features).mean(dim=(2, 3))
            return F.linear(pooled, _wide(self.gate[2])) + F.linear(at_least_float32(embedding), _wide(self.freq_gate))

    def forward(
        self,
        features: torch.Tensor,
        embedding: torch.Tensor,
        noisy: bool = False,
        generator: torch.Generator | None = None,
        with_loss: bool = False,
    ) -> Routing:
        """Choose the experts of each picture.

        Args:
            features: (B, C, H, W).
            embedding: (B, E).
            noisy: Whether to add noise to the logits.
            generator: Where the noise comes from; None: torch's own generator. The samples are drawn on the
                generator's device and moved, so a CPU generator gives the same choices on every device.
            with_loss: Whether to compute the balance loss.
        """
        clean = self.logits(features, embedding)
        logits = clean
        if noisy:
            device = clean.device if generator is None else generator.device
            samples = torch.randn(clean.shape, generator=generator, device=device, dtype=clean.dtype)
            logits = clean + samples.to(clean.device) * self.noise_std
        gates, experts = logits.softmax(dim=1).topk(self.topk, dim=1)
        loss = None
        if with_loss:
            complexity = self.complexity if self.with_complexity else None
            loss = balance_loss(clean, logits, self.topk, self.noise_std, complexity)
        return Routing(experts, gates, loss)


def _wide(linear: nn.Module) -> torch.Tensor:
    """A linear layer's weight in float32 or better."""
    assert isinstance(linear, nn.Linear)
    return at_least_float32(linear.weight)
