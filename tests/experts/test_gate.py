import pytest
import torch

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.experts.gate import ExpertGate, relative_complexity

COSTS = [10, 20, 40, 80]


def inputs(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 6, 4, 3, generator=generator), torch.randn(batch, 7, generator=generator)


def test_complexity_is_relative() -> None:
    assert relative_complexity(COSTS, "max").tolist() == [0.125, 0.25, 0.5, 1]
    assert relative_complexity(COSTS, "min").tolist() == [1, 2, 4, 8]
    with pytest.raises(UnknownNameError, match="complexity_scale"):
        relative_complexity(COSTS, "mean")


def test_state_dict_names() -> None:
    gate = ExpertGate(6, 7, COSTS)
    shapes = {name: tuple(value.shape) for name, value in gate.state_dict().items()}
    assert shapes == {"complexity": (4,), "gate.2.weight": (4, 6), "freq_gate.weight": (4, 7)}


@pytest.mark.parametrize("topk", [1, 2, 4])
def test_chooses_the_most_probable_without_renormalising(topk: int) -> None:
    gate = ExpertGate(6, 7, COSTS, topk=topk)
    features, embedding = inputs()
    routing = gate(features, embedding)
    logits = features.mean((2, 3)) @ gate.gate[2].weight.T + embedding @ gate.freq_gate.weight.T
    probabilities = logits.softmax(1)
    assert torch.equal(routing.experts, probabilities.argsort(1, descending=True)[:, :topk])
    torch.testing.assert_close(routing.gates, probabilities.gather(1, routing.experts))
    assert routing.loss is None
    if topk < 4:
        assert (routing.gates.sum(1) < 1).all()


def test_noise_has_the_published_strength() -> None:
    gate = ExpertGate(6, 7, COSTS, topk=4)
    features, embedding = inputs(1)
    features, embedding = features.expand(4000, -1, -1, -1), embedding.expand(4000, -1)
    clean = gate.logits(features, embedding)
    routing = gate(features, embedding, True, torch.Generator().manual_seed(1))
    # From the gates back to logits, up to a constant per picture, which differences take away.
    gates = torch.empty(4000, 4).scatter_(1, routing.experts, routing.gates.detach())
    noise = (gates.log() - clean).diff(dim=1)
    assert noise.std().item() == pytest.approx(0.25 * 2**0.5, rel=0.05)
    assert noise.mean().abs() < 0.02


def test_generator_decides_the_noise() -> None:
    gate = ExpertGate(6, 7, COSTS)
    first, second, third = (gate(*inputs(50), True, torch.Generator().manual_seed(seed)).gates for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_loss_knows_complexity() -> None:
    plain, biased = ExpertGate(6, 7, COSTS), ExpertGate(6, 7, COSTS, with_complexity=True)
    biased.load_state_dict(plain.state_dict())
    losses = [gate(*inputs(), with_loss=True).loss for gate in (plain, biased)]
    assert abs(losses[0].item() - losses[1].item()) > 1e-3


def test_decides_in_float32_under_autocast() -> None:
    gate = ExpertGate(6, 7, COSTS)
    with torch.autocast("cpu", torch.bfloat16):
        routing = gate(*inputs())
    assert routing.gates.dtype == torch.float32
    assert torch.equal(routing.gates, gate(*inputs()).gates)


@pytest.mark.parametrize("topk", [0, 5])
def test_topk_out_of_range(topk: int) -> None:
    with pytest.raises(InvalidValueError, match=str(topk)):
        ExpertGate(6, 7, COSTS, topk=topk)
