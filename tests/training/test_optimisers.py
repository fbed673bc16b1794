import torch
from torch import nn

from moir.training.optimisers import Muon, make_optimiser, orthogonalise
from moir.training.recipe import Optimiser


def test_orthogonalise_brings_singular_values_near_one():
    matrices = torch.randn(3, 24, 100, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.25
    tall = orthogonalise(matrices.mT)
    torch.testing.assert_close(tall, orthogonalise(matrices).mT, atol=0.02, rtol=0)


def test_matrices_that_are_zero_stay_finite():
    assert orthogonalise(torch.zeros(1, 16, 20)).abs().max() == 0


def test_a_step_moves_a_matrix_by_the_learning_rate():
    weight = nn.Parameter(torch.zeros(32, 16, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    Muon([weight], [], lr=0.01).step()
    # The root mean square of an update is 0.2 times the rate; the iteration is exact to some 15%.
    assert 0.01 * 0.2 * 0.8 < weight.detach().square().mean().sqrt() < 0.01 * 0.2 * 1.2
    assert (weight * weight.grad).sum() < 0


def test_the_rest_goes_as_adamw_does():
    ours, theirs = (nn.Linear(5, 4) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    pair = Muon([], ours.parameters(), **options), torch.optim.AdamW(theirs.parameters(), **options)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    for _ in range(5):
        for network, optimiser in zip((ours, theirs), pair, strict=True):
            optimiser.zero_grad()
            network(x).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), atol=1e-6, rtol=1e-5)


def test_convolutions_go_to_muon_and_frozen_parameters_nowhere():
    network = nn.Sequential(
        nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 3, 1), nn.Linear(32, 32)
    )
    network[2].bias.requires_grad_(False)
    optimiser = make_optimiser(network, Optimiser(name="muon"))
    matrices, rest = (group["params"] for group in optimiser.param_groups)
    assert [id(p) for p in matrices] == [id(network[0].weight)]
    assert len(rest) == 8 - 1 - 1
