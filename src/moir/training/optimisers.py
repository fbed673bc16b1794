"""The optimisers a recipe can ask for: AdamW, and Muon for the convolutions with AdamW for the rest."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from moir.runtime.device import choose_precision
from moir.training.recipe import Optimiser

SMALLEST = 16
"""Matrices with a side below this (depthwise convolutions, the last layer's few outputs) are left to AdamW."""


def make_optimiser(network: nn.Module, settings: Optimiser, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a recipe, over all parameters of a network that are trained.

    Args:
        network: On the device it is trained on.
        settings: The section of the recipe.
        fused: PyTorch's fused AdamW; not for Muon.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "adamw":
        # None leaves the choice to PyTorch, as it always was; False would be another one.
        return torch.optim.AdamW(trained, **options, fused=True if fused else None)
    matrices = [p for p in trained if is_matrix(p)]
    rest = [p for p in trained if not is_matrix(p)]
    return Muon(matrices, rest, momentum=settings.momentum, **options)


def settle(optimiser: torch.optim.Optimizer) -> None:
    """Lay out a state that was read from a file as fused AdamW wants it.

    It counts steps on the device, and goes through parameters and moments in the order in which they lie in memory: the
    moments of channels-last weights must be channels-last, too.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, value in optimiser.state.get(parameter, {}).items():
                if name == "step":
                    optimiser.state[parameter][name] = value.to(parameter.device)
                else:
                    optimiser.state[parameter][name] = torch.empty_like(parameter).copy_(value)


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether Muon applies: the weight of a convolution, both of whose sides as a matrix are large enough.

    Examples:
        >>> is_matrix(torch.zeros(48, 48, 3, 3)), is_matrix(torch.zeros(48, 1, 3, 3)), is_matrix(torch.zeros(48))
        (True, False, False)
    """
    return parameter.ndim == 4 and min(parameter.shape[0], parameter[0].numel()) >= SMALLEST


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for convolutions; AdamW for everything else.

    After K. Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024), with the scale of "Muon is
    scalable for LLM training" (arXiv 2502.16982, section 2.2): an update has the root mean square 0.2 that AdamW's
    typically has, so that both halves share one learning rate. A weight (O, I, h, w) is the matrix (O, I*h*w).

    Args:
        matrices: Weights of convolutions.
        rest: All other parameters.
        lr: Learning rate.
        momentum: Of the matrices (Nesterov).
        betas: Of AdamW.
        weight_decay: Decoupled, of both.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        groups = [{"params": list(matrices), "matrices": True}, {"params": list(rest), "matrices": False}]
        shared = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], shared)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["matrices"]:
                self._orthogonal(parameters, group)
            else:
                self._adamw(parameters, group)

    def _orthogonal(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        shapes: dict[tuple[int, int], list[tuple[nn.Parameter, torch.Tensor]]] = {}
        for parameter in parameters:
            gradient, state = _gradient(parameter), self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
            shapes.setdefault((update.shape[0], update.shape[1]), []).append((parameter, update))
        for (rows, columns), members in shapes.items():  # equal shapes together: few large products, not many small
            updates = orthogonalise(torch.stack([update for _, update in members]))
            scale = 0.2 * math.sqrt(max(rows, columns))
            for (parameter, _), update in zip(members, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        one, two = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        weights: list[torch.Tensor] = list(parameters)
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())  # on the CPU, where reading it makes nobody wait
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
        if not parameters:
            return
        # Lists of tensors: on a GPU a few kernels for all parameters, where each would need seven of its own.
        gradients = [_gradient(parameter) for parameter in parameters]
        means, squares = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        counts = [state["step"].item() for state in states]
        torch._foreach_lerp_(means, gradients, 1 - one)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - two)
        deviations = torch._foreach_div(squares, [1 - two**count for count in counts])
        torch._foreach_sqrt_(deviations)
        torch._foreach_add_(deviations, 1e-8)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        rates = [-group["lr"] / (1 - one**count) for count in counts]
        torch._foreach_addcdiv_(weights, means, deviations, rates)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Move all singular values of each matrix near 1, with five steps of a Newton-Schulz iteration of fifth order.

    The coefficients are Jordan's: they reach 0.7 to 1.2 from any singular value above about 0.001 of the norm, which is
    near enough. In bf16 where the processor has it: its products are fast, and its rounding does not matter here.
    (Elsewhere they take a hundred times as long as in float32.)

    Args:
        matrices: (N, R, C).

    Returns:
        (N, R, C), float32.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = x.to(choose_precision(None, x.device))
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad
