"""Stage 4: the router learns where in the tree a picture belongs, and how fine it may be treated.

UniRestorer, arXiv 2412.20157, equations 7 to 9, on a table of what every expert makes of every picture
(:mod:`moir.training.tree.outcomes`). Beside the paper's terms stands the expected loss of quality itself: with few
pictures the paper's gradient through the gate, which knows only the expert that was chosen, says little about the
others.
"""

from collections.abc import Mapping

import torch

from moir.training.data import generator_of
from moir.training.tree.outcomes import Outcomes
from moir.training.tree.recipe import RouterStage
from moir.universal.losses import uncertainty_loss
from moir.universal.router import Route, Router, level_balance
from moir.universal.tree import Tree


def train_router(
    outcomes: Outcomes, tree: Tree, centres: torch.Tensor, leaf: torch.Tensor, stage: RouterStage, seed: int = 0
) -> Router:
    """Train a router on a table of outcomes.

    Args:
        outcomes: Of training pictures.
        tree: The tree.
        centres: (leaves, F), of the finest groups.
        leaf: (N,), the finest group of each picture.
        stage: The section of the recipe.
        seed: Of weights, order and routing noise.

    Returns:
        The router, in evaluation mode.
    """
    torch.manual_seed(seed)
    router = Router(centres.shape[1], len(tree.leaves), len(tree.levels)).train()
    optimiser = torch.optim.Adam([p for p in router.parameters() if p.requires_grad], lr=stage.learning_rate)
    table = tree.table()
    for epoch in range(stage.epochs):
        order = torch.randperm(len(outcomes.points), generator=generator_of(seed, epoch))
        for rows in order.split(stage.batch):
            if len(rows) < 2:
                continue
            found = terms(router(outcomes.points[rows]), outcomes, rows, table, centres[leaf[rows]], stage)
            optimiser.zero_grad()
            torch.stack(list(found.values())).sum().backward()
            optimiser.step()
    return router.eval().requires_grad_(False)


def terms(
    route: Route,
    outcomes: Outcomes,
    rows: torch.Tensor,
    table: torch.Tensor,
    centres: torch.Tensor,
    stage: RouterStage,
) -> Mapping[str, torch.Tensor]:
    """The weighted terms of the loss; it is their sum.

    Args:
        route: The router's decision on these pictures.
        outcomes: Of all pictures.
        rows: (B,), which of them.
        table: (leaves, levels), experts' numbers.
        centres: (B, F), of each picture's finest group.
        stage: Weights.
    """
    found: dict[str, torch.Tensor] = {}
    leaf, level = route.leaf_probability, route.level_probability
    if stage.reconstruction:
        # Through the gate (equation 9): the error's value, with the gradient slope / gate to the gate.
        expert = table[route.leaf, route.level]
        gate = leaf.gather(1, route.leaf[:, None])[:, 0] + level.gather(1, route.level[:, None])[:, 0]
        value = outcomes.l1[rows, expert] + outcomes.slope[rows, expert] * (gate / gate.detach() - 1)
        found["reconstruction"] = stage.reconstruction * value.mean()
    if stage.regret:
        found["regret"] = stage.regret * expected_loss(outcomes.psnr[rows], leaf, level, table).mean()
    if stage.uncertainty:
        found["uncertainty"] = stage.uncertainty * uncertainty_loss(route.mu, route.log_variance, centres)
    if stage.balance:
        found["balance"] = stage.balance * level_balance(level)
    return found


def expected_loss(psnr: torch.Tensor, leaf: torch.Tensor, level: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """How much PSNR is expected to be lost against the best expert, (B,), dB.

    Args:
        psnr: (B, E).
        leaf: (B, leaves), probabilities.
        level: (B, levels), probabilities.
        table: (leaves, levels), experts' numbers.

    Examples:
        >>> psnr, table = torch.tensor([[20.0, 24.0]]), torch.tensor([[0, 1]])
        >>> expected_loss(psnr, torch.tensor([[1.0]]), torch.tensor([[0.25, 0.75]]), table)
        tensor([1.])
    """
    each = psnr[:, table]
    return psnr.amax(1) - torch.einsum("bl,bg,blg->b", leaf, level, each)
