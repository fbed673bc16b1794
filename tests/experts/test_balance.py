import math

import pytest
import torch

from moir.experts.balance import balance_loss, importance_loss, load_loss, squared_variation


def test_squared_variation() -> None:
    assert squared_variation(torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(1 / 4)  # unbiased var 1, mean 2
    assert squared_variation(torch.full((4,), 3.0)).item() == 0
    assert squared_variation(torch.tensor([5.0])).item() == 0
    assert squared_variation(torch.zeros(3)).isfinite()


def test_importance_is_balance_of_mass_weighted_by_complexity() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    assert importance_loss(probabilities).item() == pytest.approx(0, abs=1e-7)
    # Masses 1 and 1 cost 1 and 3: variance 2, mean 2.
    assert importance_loss(probabilities, torch.tensor([1.0, 3.0])).item() == pytest.approx(2 / 4)
    # Three quarters of the mass on the expert of a third of the cost is balanced.
    assert importance_loss(torch.tensor([[0.75, 0.25]]), torch.tensor([1.0, 3.0])).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("topk", [1, 2])
def test_load_counts_smooth_probabilities(topk: int) -> None:
    clean = torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.1, -0.3]])
    noisy = torch.tensor([[0.1, 0.7, 0.6], [0.0, 0.4, -0.1]])
    std = 1 / 3
    loads = [0.0, 0.0, 0.0]
    for row, noisy_row in zip(clean.tolist(), noisy.tolist(), strict=True):
        threshold = sorted(noisy_row)[-topk]
        for expert, value in enumerate(row):
            loads[expert] += 0.5 * (1 + math.erf((value - threshold) / std / math.sqrt(2))) / 2
    mean = sum(loads) / 3
    expected = sum((load - mean) ** 2 for load in loads) / 2 / mean**2
    assert load_loss(clean, noisy, topk, std).item() == pytest.approx(expected, rel=1e-5)
    total = balance_loss(clean, noisy, topk, std)
    assert total.item() == pytest.approx(0.5 * expected + 0.5 * importance_loss(clean.softmax(1)).item(), rel=1e-5)


def test_descending_the_loss_balances() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [2.0, 0.0, 0.4]], requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=0.2)
    losses = []
    for _ in range(100):
        loss = balance_loss(logits, logits, 1, 1 / 3)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]
