"""What extractor and router learn from (UniRestorer, arXiv 2412.20157, equations 3 and 7 to 9).

The experts are frozen; the router learns from reconstruction only through the gate's value, which is 1 in the result
and has a gradient (:func:`through_gate`).
"""

import math

import torch
import torch.nn.functional as F

from moir.universal.router import Route, level_balance

BALANCE = 0.01
"""Weight of equation 8 in the published code."""


def uncertainty_loss(mu: torch.Tensor, log_variance: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the degradation's centre (equation 7; data uncertainty learning, arXiv 2003.11339).

    ``mean((c - mu)^2 / sigma^2 + ln sigma^2) / 2``: where the estimate misses the centre, a large variance costs less.

    Args:
        mu: (B, features).
        log_variance: (B, features), ``ln sigma^2``.
        centres: (B, features), of each sample's finest group.
    """
    return 0.5 * ((centres - mu).square() * (-log_variance).exp() + log_variance).mean()


def scaled_log_variance(raw: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """``ln(1e-6 + exp(gamma * raw + beta))``, the convention that the published ``gamma`` and ``beta`` come from.

    The published forward does not use it: there the branch's output is the log-variance itself.
    """
    return (1e-6 + (gamma * raw + beta).exp()).log()


def through_gate(restored: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The experts' result, unchanged, with a gradient to the gate: ``restored * gate / gate.detach()``.

    Args:
        restored: (B, 3, H, W), without gradient.
        gate: (B,), the value of each picture's choice, > 0.
    """
    return restored * (gate / gate.detach()).view(-1, 1, 1, 1).to(restored.dtype)


def router_loss(
    output: torch.Tensor, target: torch.Tensor, route: Route, centres: torch.Tensor, uncertainty: float
) -> dict[str, torch.Tensor]:
    """The weighted terms of equation 9; the loss is their sum.

    Args:
        output: (B, 3, H, W), from :func:`through_gate`.
        target: (B, 3, H, W).
        route: The router's decision.
        centres: (B, features), of each sample's finest group.
        uncertainty: Weight of equation 7. The paper's value is not known.
    """
    return {
        "l1": F.l1_loss(output, target),
        "uncertainty": uncertainty * uncertainty_loss(route.mu, route.log_variance, centres),
        "balance": BALANCE * level_balance(route.level_probability),
    }


LARGEST_SCALE = math.log(100)
"""The logit scale stays within [0, ln 100] (CLIP, arXiv 2103.00020, section 2.5)."""


def contrastive_loss(features: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE between degradation features and the texts of the same pictures (equation 3).

    The mean of the two cross-entropies: which text belongs to a picture, and which picture to a text.

    Args:
        features: (B, features), of the image controller; normalised here.
        texts: (B, features), of the frozen text tower; normalised here.
        logit_scale: Scalar, the logarithm of the inverse temperature.
    """
    cosines = F.normalize(features, dim=1) @ F.normalize(texts, dim=1).T
    logits = logit_scale.exp() * cosines
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
