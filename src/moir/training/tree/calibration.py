"""Estimates made to mean what they say."""

import math

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset

from moir.base.names import TYPES
from moir.training.data import DamagedPatches, load_pictures
from moir.training.recipe import Data
from moir.training.tree.cluster import Represented, represent
from moir.training.tree.recipe import TreeRecipe
from moir.training.tree.views import ViewSamples
from moir.universal.compact_extractor import CompactExtractor
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.composed_expert import weighed

SAMPLES = 1500
"""Damaged pictures to calibrate on, and as many others to judge by."""

SCENES = 0.5
"""Share of pictures that are seen nearly whole, when the extractor's and the grid's estimates are weighed."""

SOUND = 1 / 3
"""Share of sound pictures among these. How often a type is found depends on how often it is expected, and who restores
a folder has sound photographs in it, too, of which recipes show the networks fewer."""


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
    slope, offset = fit(found.presence_logits[None], found.presence)
    extractor.slope.copy_(slope[0])
    extractor.offset.copy_(offset)
    return seen(pictures[1::2])


@torch.inference_mode()
def weigh(network: CompactUniRestorer, recipe: TreeRecipe, count: int = SAMPLES) -> torch.Tensor:
    """Set what the extractor's and the bilateral grid's estimates of presence count in the tree's.

    Fitted on training pictures, half of which are seen nearly whole, as a user's are, and a third of which are sound;
    neither estimate knows them so well that it would be surer of them than of others. Nothing changes in a tree without
    a grid.

    Args:
        network: Assembled; changed in place.
        recipe: The run.
        count: Damaged pictures to fit on.

    Returns:
        Cross-entropy, bits per type and picture, of the extractor alone, the grid alone and both: (3, 7).
    """
    if network.scene is None:
        return torch.zeros(3, len(TYPES))
    pictures = load_pictures(recipe.data.folders, recipe.router.size)
    data = as_brought(recipe)
    samples = DamagedPatches(pictures, data, recipe.seed + 4)
    seen, truth = [], []
    loader = DataLoader(Subset(samples, range(count)), batch_size=16, num_workers=recipe.data.workers)
    for batch in loader:
        x = batch["input"]
        own, _ = network.extractor.estimate(network.extractor(x))
        seen.append(torch.stack([own, network.scene.analyse(x)["presence"]]))
        truth.append(batch["presence"])
    logits, presence = torch.cat(seen, dim=1), torch.cat(truth)
    with torch.inference_mode(False):
        slopes, offset = fit(logits, presence)
    network.weighing.copy_(torch.cat([slopes, offset[None]]))
    both = weighed(network.weighing, *logits)
    bits = [F.binary_cross_entropy_with_logits(x, presence, reduction="none").mean(0) for x in (*logits, both)]
    return torch.stack(bits) / math.log(2)


def as_brought(recipe: TreeRecipe) -> Data:
    """Samples like the pictures that users bring: more of the scene, and more of them sound, than in training."""
    damage = recipe.data.damage
    damaged = (1 - SOUND) / (1 - damage.clean)
    shares = {"clean": SOUND, "single": damage.single * damaged, "named": damage.named * damaged}
    changes = {
        "instruct": 0.0,
        "patch": recipe.router.size,
        "scenes": SCENES,
        "damage": damage.model_copy(update=shares),
    }
    return recipe.data.model_copy(update=changes)


def fit(logits: torch.Tensor, presence: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes (E, 7) and offset (7,) that minimise the cross-entropy of ``sum(slopes * logits) + offset``.

    Args:
        logits: (E, N, 7), of E estimates.
        presence: (N, 7), 0 or 1.

    Examples:
        >>> twice = torch.tensor([-2.0, 2.0, 2.0, -2.0] * 2)[None, :, None].expand(-1, -1, 7)
        >>> seen = torch.tensor([0.0, 1.0, 1.0, 1.0] * 2)[:, None].expand(-1, 7)
        >>> slopes, offset = fit(twice, seen)
        >>> bool((torch.sigmoid(-2 * slopes[0] + offset) - 0.5).abs().max() < 0.01)
        True
    """
    # A little pull towards no change: with no mistakes at all the slopes would grow for ever.
    logits, presence = logits.clone(), presence.clone()  # made in inference mode
    slope = torch.full((len(logits), len(TYPES)), 1 / len(logits), requires_grad=True)
    offset = torch.zeros(len(TYPES), requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, offset], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits((logits * slope[:, None]).sum(0) + offset, presence)
        value = value + 1e-4 * ((slope - 1 / len(logits)).square().sum() + offset.square().sum())
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
