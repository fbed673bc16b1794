import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from moir.experts.dispatch import dispatch


class Affine(nn.Module):
    """An expert that remembers how many pictures it was given."""

    def __init__(self, index: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(index)
        self.scale = nn.Parameter(torch.randn(2, 1, 1, generator=generator))
        self.shift = nn.Parameter(torch.randn(2, 1, 1, generator=generator))
        self.calls: list[int] = []

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        return torch.tanh(x * self.scale) + y * self.shift


def make(count: int) -> nn.ModuleList:
    return nn.ModuleList([Affine(index) for index in range(count)])


def dense(experts: nn.ModuleList, x: torch.Tensor, y: torch.Tensor, chosen: torch.Tensor, gates: torch.Tensor):
    """Every expert on every picture, then a weighted sum."""
    everything = torch.stack([expert(x, y) for expert in experts], dim=1)
    weights = torch.zeros(len(x), len(experts)).scatter_add(1, chosen, gates)
    return (weights[:, :, None, None, None] * everything).sum(dim=1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_dense_sum_in_values_and_gradients(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5), "experts")
    topk = data.draw(st.integers(1, count), "topk")
    batch = data.draw(st.integers(1, 6), "batch")
    rows = [data.draw(st.permutations(range(count)), f"picture {b}")[:topk] for b in range(batch)]
    chosen = torch.tensor(rows)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999), "seed"))
    x, y = torch.randn(2, batch, 2, 3, 4, generator=generator)
    gates = torch.rand(batch, topk, generator=generator, requires_grad=True)
    experts = make(count)

    sparse = dispatch(experts, (x, y), chosen, gates)
    used = sorted({e for row in rows for e in row})
    for index, expert in enumerate(experts):
        expected = sum(index in row for row in rows)
        assert expert.calls == ([expected] if expected else []), "only the chosen, once, on their pictures"
    reference = dense(experts, x, y, chosen, gates)
    torch.testing.assert_close(sparse, reference, rtol=1e-5, atol=1e-6)

    wanted = [*experts.parameters(), gates]
    got, expected_grads = (torch.autograd.grad(out.square().sum(), wanted) for out in (sparse, reference))
    for ours, theirs in zip(got, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert used


def test_one_expert_chosen_twice_counts_twice() -> None:
    experts, x = make(2), torch.randn(1, 2, 3, 4)
    chosen, gates = torch.tensor([[1, 1]]), torch.tensor([[0.25, 0.5]])
    torch.testing.assert_close(dispatch(experts, (x, x), chosen, gates), 0.75 * experts[1](x, x))


def test_unused_experts_get_zero_gradients_unless_frozen() -> None:
    experts, x = make(3), torch.randn(2, 2, 3, 4)
    experts[2].requires_grad_(False)
    dispatch(experts, (x, x), torch.tensor([[0], [0]]), torch.ones(2, 1)).sum().backward()
    assert experts[0].shift.grad is not None
    assert experts[0].shift.grad.any()
    assert experts[1].shift.grad is not None
    assert not experts[1].shift.grad.any()
    assert experts[2].shift.grad is None


def test_no_graph_without_gradients() -> None:
    experts, x = make(2), torch.randn(2, 2, 3, 4)
    with torch.no_grad():
        out = dispatch(experts, (x, x), torch.tensor([[0], [0]]), torch.ones(2, 1))
    assert out.grad_fn is None


@pytest.mark.parametrize("rows", [[[0], [1]], [[0], [0]]])
def test_keeps_the_precision_of_the_experts(rows: list[list[int]]) -> None:
    experts, x = make(2).bfloat16(), torch.randn(2, 2, 3, 4).bfloat16()
    assert dispatch(experts, (x, x), torch.tensor(rows), torch.ones(2, 1)).dtype == torch.bfloat16
