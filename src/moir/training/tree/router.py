"""Stage 4: the router learns where in the tree a picture belongs, and how fine it may be treated.

UniRestorer, arXiv 2412.20157, equations 7 to 9, on a table of what every expert makes of every picture
(:mod:`moir.training.tree.outcomes`). The paper's gradient reaches the gates only through the value of the expert that
was chosen (:func:`moir.universal.losses.through_gate`), which says nothing about the others. Here the table says it:
the leaf gate learns the picture's group, the level gate which level of the chosen leaf restores best, and both what
a choice costs against the best of all.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from moir.training.data import generator_of
from moir.training.tree.outcomes import Outcomes
from moir.training.tree.recipe import RouterStage
from moir.universal.losses import uncertainty_loss
from moir.universal.router import Route, Router, level_balance
from moir.universal.tree import Tree

ENOUGH = 40.0
"""PSNR, dB, beyond which more is worth nothing: an untouched clean picture must not outweigh everything else."""

TEMPERATURE = 0.5
"""dB: by how much a level must be better to be wanted e times as much."""


def train_router(
    outcomes: Outcomes,
    tree: Tree,
    centres: torch.Tensor,
    leaf: torch.Tensor,
    stage: RouterStage,
    seed: int = 0,
    more: tuple[torch.Tensor, torch.Tensor] | None = None,
    start: Router | None = None,
) -> Router:
    """Train a router on a table of outcomes.

    Args:
        outcomes: Of training pictures.
        tree: The tree.
        centres: (leaves, F), of the finest groups.
        leaf: (N,), the finest group of each picture.
        stage: The section of the recipe.
        seed: Of weights, order, jitter and routing noise.
        more: Places (M, F) and groups (M,) of pictures without outcomes, from which the leaf gate learns too.
        start: The router to go on from, changed in place; None: fresh weights.

    Returns:
        The router, in evaluation mode.
    """
    torch.manual_seed(seed)
    router = (start or Router(centres.shape[1], len(tree.leaves), len(tree.levels))).train()
    trained = [p for p in router.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    known = len(outcomes.points)
    points = torch.cat([outcomes.points, more[0]]) if more else outcomes.points
    groups = torch.cat([leaf, more[1]]) if more else leaf
    table = tree.table()
    for epoch in range(stage.epochs):
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * (1 - epoch / stage.epochs)
        for rows in torch.randperm(len(points), generator=generator_of(seed, epoch)).split(stage.batch):
            measured = rows < known
            if int(measured.sum()) < 2:
                continue
            route = router(points[rows] + stage.jitter * torch.randn(len(rows), points.shape[1]))
            found = leaf_terms(route, groups[rows], centres, stage)
            found |= level_terms(_part(route, measured), outcomes, rows[measured], table, stage)
            optimiser.zero_grad()
            torch.stack(list(found.values())).sum().backward()
            optimiser.step()
    return router.eval().requires_grad_(False)


def leaf_terms(
    route: Route, groups: torch.Tensor, centres: torch.Tensor, stage: RouterStage
) -> dict[str, torch.Tensor]:
    """The weighted terms that need no outcomes.

    Args:
        route: The router's decision on B pictures.
        groups: (B,), the finest group of each.
        centres: (leaves, F), of the finest groups.
        stage: Weights.
    """
    found: dict[str, torch.Tensor] = {"leaf": stage.leaf * F.cross_entropy(route.leaf_logits, groups)}
    if stage.uncertainty:
        found["uncertainty"] = stage.uncertainty * uncertainty_loss(route.mu, route.log_variance, centres[groups])
    if stage.balance:
        found["balance"] = stage.balance * level_balance(route.level_probability)
    return found


def level_terms(
    route: Route, outcomes: Outcomes, rows: torch.Tensor, table: torch.Tensor, stage: RouterStage
) -> Mapping[str, torch.Tensor]:
    """The weighted terms that are learnt from outcomes.

    Args:
        route: The router's decision on B pictures.
        outcomes: Of all pictures.
        rows: (B,), which of them.
        table: (leaves, levels), experts' numbers.
        stage: Weights.
    """
    found: dict[str, torch.Tensor] = {}
    if stage.reconstruction:
        # Equation 9 through the gate: the error's value, with the gradient slope / gate to the gate.
        expert = table[route.leaf, route.level]
        leaf, level = route.leaf_probability, route.level_probability
        gate = leaf.gather(1, route.leaf[:, None])[:, 0] + level.gather(1, route.level[:, None])[:, 0]
        value = outcomes.l1[rows, expert] + outcomes.slope[rows, expert] * (gate / gate.detach() - 1)
        found["reconstruction"] = stage.reconstruction * value.mean()
    regret = regret_of_levels(outcomes.psnr[rows], table[route.leaf])
    if stage.level:
        wanted = (-regret / TEMPERATURE).softmax(1)
        found["level"] = stage.level * F.cross_entropy(route.level_logits, wanted)
    if stage.choice:
        regret_of_all = regret_of_levels(outcomes.psnr[rows], table.flatten().expand(len(rows), -1))
        chance = route.leaf_probability[:, :, None] * route.level_probability[:, None, :]
        found["choice"] = stage.choice * (chance.flatten(1) * regret_of_all).sum(1).mean()
    if stage.regret:
        found["regret"] = stage.regret * (regret * route.level_probability).sum(1).mean()
    return found


def regret_of_levels(psnr: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """How much each level loses against the best one, (B, levels), dB; beyond :data:`ENOUGH` nothing is lost.

    Args:
        psnr: (B, E).
        experts: (B, levels), the numbers of the chosen leaf's experts.

    Examples:
        >>> psnr = torch.tensor([[20.0, 24.0, 23.0], [45.0, 30.0, 60.0]])
        >>> regret_of_levels(psnr, torch.tensor([[0, 1, 2], [0, 1, 2]]))
        tensor([[ 4.,  0.,  1.],
                [ 0., 10.,  0.]])
    """
    reached = psnr.clamp(max=ENOUGH).gather(1, experts)
    return reached.amax(1, keepdim=True) - reached


def _part(route: Route, rows: torch.Tensor) -> Route:
    """The decision on some of the pictures."""
    return Route(
        route.mu[rows],
        route.log_variance[rows],
        route.leaf_logits[rows],
        route.level_logits[rows],
        route.leaf[rows],
        route.level[rows],
    )
