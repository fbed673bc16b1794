"""Masks, instructions and the gradient to the router."""

import pytest
import torch

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.models import create_model
from moir.networks.base import select
from moir.universal.network import UniRestorer


@pytest.fixture
def network() -> UniRestorer:
    made = create_model("test_unirestorer")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
        made.lf_gate[0].weight.normal_()
        made.layer_gate[0].weight.normal_()
    assert isinstance(made, UniRestorer)
    return made.eval()


def pictures() -> torch.Tensor:
    return torch.rand(5, 3, 17, 21) ** torch.linspace(0.2, 5, 5).view(-1, 1, 1, 1)


@torch.inference_mode()
def test_masks_prune_what_they_say(network: UniRestorer) -> None:
    x = pictures()
    for leaf in range(3):
        context = network.decide(x, leaf_mask=torch.arange(3) != leaf)
        assert context["leaf"].tolist() == [leaf] * 5
        assert torch.equal(context["level"], network.decide(x)["level"])
        assert context["leaf_probability"][:, leaf].tolist() == [1.0] * 5
    for level in range(3):
        context = network.decide(x, level_mask=torch.arange(3) != level)
        assert context["level"].tolist() == [level] * 5
        assert torch.equal(context["leaf"], network.decide(x)["leaf"])
    per_picture = torch.eye(5).bool()[:, :3]
    assert all(network.decide(x, leaf_mask=per_picture)["leaf"][i] != i for i in range(3))


@torch.inference_mode()
def test_something_always_survives(network: UniRestorer) -> None:
    x = pictures()
    free, all_pruned = network.decide(x), network.decide(x, torch.ones(3).bool(), torch.ones(3).bool())
    assert torch.equal(free["expert"], all_pruned["expert"])
    assert torch.isfinite(all_pruned["leaf_probability"]).all()


def test_wrong_masks_are_named(network: UniRestorer) -> None:
    for mask in (torch.ones(4).bool(), torch.ones(3), torch.ones(2, 3).bool()):
        with pytest.raises(TensorShapeError, match="mask"):
            network.decide(pictures(), leaf_mask=mask)


@torch.inference_mode()
def test_an_instruction_prunes_the_tree(network: UniRestorer) -> None:
    context = network.analyse(pictures())
    rain = network.instruct(context, ["rain"])
    assert set(rain["expert"].tolist()) <= {2, 4, 5}
    assert set(network.instruct(rain, ["noise"])["expert"].tolist()) <= {1, 3}  # starts from the whole tree again
    assert set(network.instruct(context, ["rain"], keep_all=True)["expert"].tolist()) <= {0, 2, 4, 5}
    both = network.instruct(context, ["noise", "rain"])
    assert torch.equal(both["expert"], context["expert"])
    with pytest.raises(InvalidValueError, match="cannot be told to remove haze: its experts are for noise, rain"):
        network.instruct(context, ["haze"])
    with pytest.raises(UnknownNameError, match="did you mean 'rain'"):
        network.instruct(context, ["rian"])


@torch.inference_mode()
def test_one_decision_serves_all_tiles(network: UniRestorer) -> None:
    x = torch.rand(1, 3, 40, 40)
    context = network.analyse(x)
    tiles = torch.cat([x[..., :24, :24], x[..., 16:, 16:]])
    alone = torch.cat([network(tile[None], context) for tile in tiles])
    torch.testing.assert_close(network(tiles, context), alone, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_extreme_shapes(network: UniRestorer) -> None:
    for size in [(1, 1), (1, 700), (700, 1), (3, 5)]:
        x = torch.rand(2, 3, *size)
        assert network(x).shape == x.shape
        assert torch.equal(network(x), network(x))


def test_the_result_is_the_expert_and_the_gradient_goes_to_the_router(network: UniRestorer) -> None:
    network.train()
    assert not any(module.training for module in network.experts)
    network.routing_noise = "never"
    x = pictures()
    context = network.analyse(x)
    output = network(x, context)
    for row, number in enumerate(context["expert"].tolist()):
        expert = network.experts[number]
        torch.testing.assert_close(output[row : row + 1].detach(), expert(x[row : row + 1]), rtol=0, atol=2e-6)
    gate = (
        context["leaf_probability"].gather(1, context["leaf"][:, None])
        + context["level_probability"].gather(1, context["level"][:, None])
    )[:, 0]
    per_picture = output.sum(dim=(1, 2, 3))
    # The gradient is that of sum(y * gate / gate.detach()).
    weights = (network.lf_gate[0].weight, network.layer_gate[0].weight)
    wanted = torch.autograd.grad((per_picture.detach() * gate / gate.detach()).sum(), weights, retain_graph=True)
    found = torch.autograd.grad(per_picture.sum(), weights, retain_graph=True)
    for one, other in zip(found, wanted, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    per_picture.sum().backward()
    assert all(p.grad is None for p in network.daclip_model.parameters())
    assert network.balance_loss is not None


def test_noise_of_training_can_be_seeded_and_one_picture_is_refused(network: UniRestorer) -> None:
    network.train()
    x = pictures()
    logits = []
    for seed in (1, 1, 2):
        network.routing_generator = torch.Generator().manual_seed(seed)
        logits.append(network.decide(x)["leaf_logits"])
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    with pytest.raises(InvalidValueError, match="one picture"):
        network(x[:1])


def test_experts_and_tree_must_fit() -> None:
    tree = {"leaves": [{"name": "noise", "types": ["noise"], "experts": [0, 1, 3]}]}
    small = ["test_restormer", {"dim": 4, "heads": (1, 1, 1, 1)}]
    with pytest.raises(InvalidValueError, match="asks for expert 3 at level degree, whose experts are 2 to 2"):
        create_model("test_unirestorer", tree=tree, experts=[[small], [small], [small]])
    with pytest.raises(InvalidValueError, match="experts of 2 levels for a tree of 3"):
        create_model("test_unirestorer", tree=tree, experts=[[small], [small]])


@torch.inference_mode()
def test_a_flat_tree_of_our_own() -> None:
    tree = {
        "levels": ["all", "degree"],
        "leaves": [
            {"name": "H-R", "types": ["haze", "rain"], "experts": [0, 1]},
            {"name": "haze", "types": ["haze"], "experts": [0, 2]},
        ],
    }
    small = ["test_restormer", {"dim": 4, "heads": (1, 1, 1, 1)}]
    network = create_model("test_unirestorer", tree=tree, experts=[[small], [small, small]]).eval()
    x = pictures()
    context = network.analyse(x)
    assert network.instruct(context, ["haze"])["expert"].tolist() == [2] * 5
    assert select(context, [1])["level_probability"].shape == (1, 2)
