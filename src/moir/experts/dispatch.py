"""Send every picture to its chosen experts, compute nothing else, and put the weighted results back together."""

from typing import Any

import torch
from torch import nn

from moir.layers import tracing


def _every_expert(
    experts: nn.ModuleList, inputs: tuple[torch.Tensor, ...], chosen: torch.Tensor, gates: torch.Tensor
) -> torch.Tensor:
    """What a graph holds for :func:`dispatch`: every expert on every picture, times 0 where it was not chosen."""
    parts = [_weighted(expert(*inputs), (gates * (chosen == index)).sum(dim=1)) for index, expert in enumerate(experts)]
    return torch.stack(parts).sum(dim=0)


@tracing.traced_as(_every_expert)
def dispatch(
    experts: nn.ModuleList, inputs: tuple[torch.Tensor, ...], chosen: torch.Tensor, gates: torch.Tensor
) -> torch.Tensor:
    """Weighted sum over each picture's experts: ``out[b] = sum_j gates[b, j] * experts[chosen[b, j]](inputs[b])``.

    Each expert runs at most once, on the pictures that chose it; an expert that nobody chose is not computed. Right
    for any batch size and any number of experts per picture, in training and in evaluation.

    Where gradients are recorded, the parameters of experts that nobody chose get gradients of **zero** instead of
    None, so that distributed training, which waits for every parameter's gradient, does not fail.

    The choices are read by the host, which waits for the device to have made them. Where they were made before, as for
    the tiles of a picture, keep ``chosen`` on the CPU: then nobody waits.

    Args:
        experts: E modules, each from (n, ...) tensors to one (n, ...) tensor of the same shape as the others'.
        inputs: Tensors with the batch B as first dimension; each expert gets its rows of all of them.
        chosen: (B, k) int64, values 0 to E - 1, on the device of the others or on the CPU.
        gates: (B, k), one weight per choice.

    Returns:
        (B, ...), in the precision of the experts' outputs.
    """
    batch = chosen.shape[0]
    choices: list[list[int]] = chosen.tolist()  # one synchronisation with the device for all experts
    rows_of: list[list[int]] = [[] for _ in experts]
    for picture, own in enumerate(choices):
        for choice in set(own):
            rows_of[choice].append(picture)
    alike = all(own == choices[0] for own in choices)
    out: torch.Tensor | None = None
    unused: list[nn.Parameter] = []
    for index, (expert, rows) in enumerate(zip(experts, rows_of, strict=True)):
        if not rows:
            unused.extend(expert.parameters())
            continue
        if alike:  # one picture, or its tiles: the weight is a column of the gates
            places = [place for place, choice in enumerate(choices[0]) if choice == index]
            weight = gates[:, places[0]] if len(places) == 1 else gates[:, places].sum(dim=1)
        else:
            weight = (gates * (chosen.to(gates.device) == index)).sum(dim=1)
        if len(rows) == batch:
            result = _weighted(expert(*inputs), weight)
            out = result if out is None else out + result
            continue
        at = torch.tensor(rows, device=gates.device)
        result = _weighted(expert(*(t.index_select(0, at) for t in inputs)), weight.index_select(0, at))
        if out is None:
            out = result.new_zeros(batch, *result.shape[1:])
        out = out.index_add(0, at, result)
    assert out is not None, "dispatch needs at least one picture"
    if unused and torch.is_grad_enabled():
        out = _ZeroGradients.apply(out, *unused)
    return out


def _weighted(result: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply (n, ...) by one weight per picture, keeping the precision."""
    return result * weight.to(result.dtype).view(-1, *[1] * (result.dim() - 1))


class _ZeroGradients(torch.autograd.Function):
    """Pass the first argument through; give the other ones gradients of zero."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*parameters)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        zeros = (
            torch.zeros_like(parameter) if needed else None
            for parameter, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        )
        return (grad_outputs[0], *zeros)
