"""The terms of the training loss, each by name, so that a term that is not finite can be named."""

import torch
import torch.nn.functional as F

from moir.networks.base import Context, RestorationNetwork
from moir.training.recipe import Loss


def terms(
    network: RestorationNetwork,
    output: torch.Tensor,
    context: Context,
    sample: dict[str, torch.Tensor],
    weights: Loss,
    taught: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The weighted terms of the loss that apply to this network.

    Args:
        network: After its forward pass (a routed one holds its balance loss).
        output: (B, 3, H, W).
        context: What the network's ``analyse`` returned.
        sample: A batch of :class:`moir.training.data.DamagedPatches` or :class:`moir.training.pairs.PairPatches`.
        weights: The section of the recipe.
        taught: (B, 3, H, W), what the teacher makes of the same input, if there is one.

    Returns:
        Name to scalar; the loss is their sum.
    """
    target = sample["target"]
    found: dict[str, torch.Tensor] = {}
    if weights.l1:
        found["l1"] = weights.l1 * F.l1_loss(output, target)
    if weights.log_l1:
        found["log_l1"] = weights.log_l1 * log_l1(output, target)
    if weights.charbonnier:
        found["charbonnier"] = weights.charbonnier * charbonnier(output, target)
    if weights.fft:
        found["fft"] = weights.fft * fft_loss(output, target)
    if weights.distil and taught is not None:
        found["distil"] = weights.distil * F.l1_loss(output, taught)
    if weights.presence and "presence" in context:
        found["presence"] = weights.presence * presence_loss(context["presence"].float(), sample["presence"])
    if weights.degree and "degree" in context:
        found["degree"] = weights.degree * degree_loss(context["degree"].float(), sample["degree"])
    if weights.balance and network.balance_loss is not None:
        found["balance"] = weights.balance * network.balance_loss
    return found


def log_l1(output: torch.Tensor, target: torch.Tensor, floor: float = 0.01) -> torch.Tensor:
    """Mean over pictures of log(L1 + floor).

    Each picture's gradient is divided by its own error, so that mild damage (JPEG, slight blur) counts as much as heavy
    damage (haze), whose L1 is ten times larger. PSNR, which papers average over pictures, is a logarithm too.
    """
    return ((output - target).abs().mean(dim=(1, 2, 3)) + floor).log().mean()


def charbonnier(output: torch.Tensor, target: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Mean of sqrt(d^2 + epsilon^2) (Charbonnier et al. 1994; Lai et al. 2017)."""
    return ((output - target).square() + epsilon**2).sqrt().mean()


def fft_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 between the real and imaginary parts of the un-normalised 2-D spectra (MIMO-UNet, Cho et al. 2021; MoCE-IR).

    Always computed in float32: half precisions have no FFT.
    """
    difference = torch.fft.rfft2(output.float() - target.float())
    return torch.view_as_real(difference).abs().mean()


def presence_loss(logits: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the types that are there, over the pictures of which they are known.

    Args:
        logits: (B, 7).
        presence: (B, 7), 0 or 1, or -1 in the whole row of a picture of which nothing is known.
    """
    known = presence[:, 0] >= 0
    if not bool(known.any()):
        return logits.sum() * 0.0
    return F.binary_cross_entropy_with_logits(logits[known], presence[known])


def degree_loss(logits: torch.Tensor, degree: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the degree, over the types that are there.

    Args:
        logits: (B, 7, 3).
        degree: (B, 7), index of the degree or -1.
    """
    if not bool((degree >= 0).any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits.flatten(0, 1), degree.flatten(), ignore_index=-1)
