"""Losses that keep a gate from sending every picture to the same expert.

From "Outrageously large neural networks" (arXiv 1701.06538, section 4 and appendix A), in the form that MoCE-IR
(arXiv 2411.18466, section 3.3) uses: experts may be weighted by their complexity, so that the cheap ones are preferred.
"""

import torch

_TINY = 1e-10  # keeps the ratio finite when no expert gets anything


def squared_variation(x: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation, ``var(x) / mean(x)^2``, with the unbiased variance.

    Args:
        x: (E,), one value per expert.

    Returns:
        A scalar >= 0; 0 for a single expert, which is always balanced.
    """
    if x.numel() < 2:
        return x.sum() * 0
    return x.var(correction=1) / (x.mean().square() + _TINY)


def importance_loss(probabilities: torch.Tensor, complexity: torch.Tensor | None = None) -> torch.Tensor:
    """Balance what the gate wants: the probability mass each expert gets in the batch.

    Args:
        probabilities: (B, E), the softmax of the clean logits.
        complexity: (E,), the experts' relative cost; the mass of each is multiplied by it, so that balance means less
            mass for the expensive ones. None: all alike.

    Returns:
        A scalar >= 0.
    """
    importance = probabilities.sum(dim=0)
    if complexity is not None:
        importance = importance * complexity.to(importance)
    return squared_variation(importance)


def load_loss(clean: torch.Tensor, noisy: torch.Tensor, topk: int, noise_std: float) -> torch.Tensor:
    """Balance what the experts get: the smooth probability of being among the top k under new noise.

    Args:
        clean: (B, E), logits without noise.
        noisy: (B, E), the logits that the choice was made on.
        topk: Experts per picture.
        noise_std: Standard deviation of the routing noise.

    Returns:
        A scalar >= 0.
    """
    threshold = noisy.topk(topk, dim=1).values[:, -1:]
    probability = torch.special.ndtr((clean - threshold) / noise_std)
    return squared_variation(probability.mean(dim=0))


def balance_loss(
    clean: torch.Tensor,
    noisy: torch.Tensor,
    topk: int,
    noise_std: float,
    complexity: torch.Tensor | None = None,
) -> torch.Tensor:
    """Half the importance loss plus half the load loss; arguments as above."""
    importance = importance_loss(clean.softmax(dim=1), complexity)
    return 0.5 * importance + 0.5 * load_loss(clean, noisy, topk, noise_std)
