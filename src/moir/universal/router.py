"""The router of UniRestorer: from a degradation representation to a leaf of the tree and a level of granularity.

Paper: UniRestorer, arXiv 2412.20157, sections 3.3 and 3.4. State-dict names are the published ones. Different on
purpose: masks prune what they say (the published code swaps them), and are applied to the logits, so that the rest of
the probabilities still sum to 1.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError, TensorShapeError
from moir.base.names import check_name
from moir.experts.balance import squared_variation
from moir.layers.precision import at_least_float32

RouterNoise = Literal["training", "never"]

DEPTH = 5
SLOPE = 0.1
LEAST_NOISE = 0.01
"""Standard deviation that the noise on the logits has at least."""


@dataclass(frozen=True)
class Route:
    """What was decided about B pictures.

    Attributes:
        mu: (B, features), the estimate of the degradation.
        log_variance: (B, features), how unsure it is: the logarithm of the variance.
        leaf_logits: (B, leaves), with the noise of training, if any.
        level_logits: (B, levels), the coarsest first.
        leaf: (B,) int64, the leaf chosen.
        level: (B,) int64, the level chosen.
    """

    mu: torch.Tensor
    log_variance: torch.Tensor
    leaf_logits: torch.Tensor
    level_logits: torch.Tensor
    leaf: torch.Tensor
    level: torch.Tensor

    @property
    def leaf_probability(self) -> torch.Tensor:
        """(B, leaves), summing to 1."""
        return self.leaf_logits.softmax(dim=1)

    @property
    def level_probability(self) -> torch.Tensor:
        """(B, levels), summing to 1."""
        return self.level_logits.softmax(dim=1)


class RouterParts(nn.Module):
    """The router's parts, for a network that holds them under the published names at its top."""

    mu: nn.Sequential
    sigma: nn.Sequential
    lf_gate: nn.Sequential
    layer_gate: nn.Sequential
    gamma: nn.Parameter
    beta: nn.Parameter
    mean: torch.Tensor
    std: torch.Tensor
    leaves: int
    levels: int
    routing_noise: RouterNoise
    routing_generator: torch.Generator | None

    def add_router(self, features: int, leaves: int, levels: int, routing_noise: RouterNoise) -> None:
        """Make the parts; arguments as for :class:`Router`."""
        check_name(routing_noise, get_args(RouterNoise), "routing_noise")
        self.leaves, self.levels = leaves, levels
        self.routing_noise, self.routing_generator = routing_noise, None
        self.mu, self.sigma = _branch(features), _branch(features)
        self.lf_gate = nn.Sequential(nn.Linear(features, 2 * leaves, bias=False))
        self.layer_gate = nn.Sequential(nn.Linear(features, 2 * levels, bias=False))
        for weight in (*self.lf_gate.parameters(), *self.layer_gate.parameters()):
            nn.init.zeros_(weight)
        # In published state dicts, but without effect there; gamma and beta scale the uncertainty in losses.py.
        self.gamma = nn.Parameter(torch.full((1,), 1e-4), requires_grad=False)
        self.beta = nn.Parameter(torch.full((1,), -7.0), requires_grad=False)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))

    def route(
        self,
        representation: torch.Tensor,
        leaf_mask: torch.Tensor | None = None,
        level_mask: torch.Tensor | None = None,
    ) -> Route:
        """Decide leaf and level (equations 4 to 6).

        In training, noise is added to the logits, unless ``routing_noise`` is ``"never"``.

        Args:
            representation: (B, features), the extractor's features as they are (not normalised).
            leaf_mask: (leaves,) or (B, leaves) bool, True for leaves that may not be chosen.
            level_mask: (levels,) or (B, levels) bool, True for levels that may not be chosen.

        Raises:
            TensorShapeError: A representation or mask of another shape.
            InvalidValueError: One picture alone in training, where batch norm needs two.
        """
        d = at_least_float32(representation)
        if d.dim() != 2 or d.shape[1] != self.lf_gate[0].in_features:
            raise TensorShapeError(
                f"expected representations (B, {self.lf_gate[0].in_features}), got {tuple(representation.shape)}"
            )
        if self.training and len(d) < 2:
            raise InvalidValueError("the router cannot train on one picture: batch norm needs two or more in a batch")
        mu, log_variance = self.mu(d), self.sigma(d)
        leaf_logits = prune(self._logits(self.lf_gate(mu)), leaf_mask)
        level_logits = prune(self._logits(self.layer_gate(log_variance)), level_mask)
        return Route(mu, log_variance, leaf_logits, level_logits, leaf_logits.argmax(1), level_logits.argmax(1))

    def _logits(self, both: torch.Tensor) -> torch.Tensor:
        """The clean half, and in training the noise whose standard deviation the other half says."""
        clean, raw = both.chunk(2, dim=1)
        if not self.training or self.routing_noise == "never":
            return clean
        generator = self.routing_generator
        where = clean.device if generator is None else generator.device
        noise = torch.randn(clean.shape, generator=generator, device=where, dtype=clean.dtype).to(clean.device)
        return clean + noise * (F.softplus(raw) + LEAST_NOISE)


class Router(RouterParts):
    """The router alone (2,649,090 parameters as published).

    Args:
        features: Length of the representation.
        leaves: Leaves of the tree.
        levels: Levels of granularity.
        routing_noise: ``"training"``: noise on the logits in training. ``"never"``: none.
    """

    def __init__(
        self, features: int = 512, leaves: int = 22, levels: int = 3, routing_noise: RouterNoise = "training"
    ) -> None:
        super().__init__()
        self.add_router(features, leaves, levels, routing_noise)

    def forward(
        self,
        representation: torch.Tensor,
        leaf_mask: torch.Tensor | None = None,
        level_mask: torch.Tensor | None = None,
    ) -> Route:
        """See :meth:`RouterParts.route`."""
        return self.route(representation, leaf_mask, level_mask)


def prune(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Logits with -inf where the mask is True. Where it would leave nothing, the best choice survives.

    Args:
        logits: (B, N).
        mask: (N,) or (B, N) bool; None: nothing is pruned.

    Raises:
        TensorShapeError: A mask of another shape or type.

    Examples:
        >>> prune(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([False, True, True])).tolist()
        [[1.0, -inf, -inf]]
    """
    if mask is None:
        return logits
    if mask.dtype != torch.bool or mask.shape not in (logits.shape, logits.shape[1:]):
        raise TensorShapeError(
            f"a mask must be bool, {tuple(logits.shape[1:])} or {tuple(logits.shape)}, True for what is pruned; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    mask = mask.to(logits.device).expand_as(logits)
    best = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    return logits.masked_fill(mask & ~(mask.all(dim=1, keepdim=True) & best), -torch.inf)


def level_balance(level_probability: torch.Tensor) -> torch.Tensor:
    """Squared variation of the levels' shares of the batch (equation 8), without its weight of 0.01.

    Args:
        level_probability: (B, levels).

    Returns:
        A scalar >= 0; 0 if all levels are wanted equally.
    """
    share = F.normalize(level_probability.sum(dim=0), p=1, dim=0)
    return squared_variation(share)


def _branch(features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(DEPTH):
        layers.append(nn.Linear(features, features, bias=False))
        if number < DEPTH - 1:
            layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers, nn.BatchNorm1d(features))
