"""The extractor's probabilities made to mean what they say, on pictures that it was never trained on."""

import torch
import torch.nn.functional as F

from moir.base.names import TYPES
from moir.training.data import load_pictures
from moir.training.tree.cluster import Represented, represent
from moir.training.tree.recipe import TreeRecipe
from moir.training.tree.views import ViewSamples
from moir.universal.compact_extractor import CompactExtractor

SAMPLES = 1500
"""Damaged pictures to calibrate on, and as many others to judge by."""


def calibrate(extractor: CompactExtractor, recipe: TreeRecipe) -> Represented:
    """Set the extractor's ``slope`` and ``offset`` (Platt scaling, one pair per type).

    Every second held-out picture is used to fit; the others judge.

    Args:
        extractor: Trained; changed in place.
        recipe: The run; ``held_out.folders`` names the pictures.

    Returns:
        The pictures to judge by, as the calibrated extractor sees them.
    """
    pictures = load_pictures(recipe.held_out.folders, min(recipe.extractor.sizes))
    data = recipe.data.model_copy(update={"instruct": 0.0})

    def seen(part: list[torch.Tensor]) -> Represented:
        stage = recipe.extractor
        samples = ViewSamples(part, data, stage.sizes, stage.batch, recipe.seed + 3, most=16)
        return represent(extractor, samples, SAMPLES, recipe.data.workers)

    extractor.slope.fill_(1.0)
    extractor.offset.zero_()
    found = seen(pictures[::2])
    slope, offset = fit(found.presence_logits, found.presence)
    extractor.slope.copy_(slope)
    extractor.offset.copy_(offset)
    return seen(pictures[1::2])


def fit(logits: torch.Tensor, presence: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset, (7,) each, that minimise the cross-entropy of ``slope * logits + offset``.

    Args:
        logits: (N, 7).
        presence: (N, 7), 0 or 1.

    Examples:
        >>> twice = torch.tensor([-2.0, 2.0, 2.0, -2.0] * 2)[:, None].expand(-1, 7)
        >>> seen = torch.tensor([0.0, 1.0, 1.0, 1.0] * 2)[:, None].expand(-1, 7)
        >>> slope, offset = fit(twice, seen)
        >>> bool((torch.sigmoid(-2 * slope + offset) - 0.5).abs().max() < 0.01)
        True
    """
    # A little pull towards no change: with no mistakes at all the slope would grow for ever.
    logits, presence = logits.clone(), presence.clone()  # made in inference mode
    slope = torch.ones(len(TYPES), requires_grad=True)
    offset = torch.zeros(len(TYPES), requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, offset], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * slope + offset, presence)
        value = value + 1e-4 * ((slope - 1).square().sum() + offset.square().sum())
        value.backward()
        return value

    optimiser.step(loss)
    return slope.detach(), offset.detach()


def expected_calibration_error(probability: torch.Tensor, truth: torch.Tensor, bins: int = 10) -> float:
    """Mean distance between what was said and what was so, over equal bins of probability, weighted by their counts.

    Args:
        probability: (N,), in [0, 1].
        truth: (N,), 0 or 1.
        bins: How many.

    Examples:
        >>> expected_calibration_error(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
        0.0
    """
    place = (probability * bins).long().clamp(max=bins - 1)
    error = 0.0
    for number in place.unique():
        own = place == number
        gap = (probability[own].mean() - truth[own].float().mean()).abs()
        error += float(gap * own.float().mean())
    return error
