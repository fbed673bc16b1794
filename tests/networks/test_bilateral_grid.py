"""The bilateral grid: what it sees of a picture, and where its training starts."""

import pytest
import torch

from moir.models import create_model
from moir.networks.bilateral_grid import BilateralGrid, Residual


@pytest.fixture
def network() -> BilateralGrid:
    """A tiny one that does something."""
    torch.manual_seed(0)
    made = create_model("test_bilateral_grid")
    assert isinstance(made, BilateralGrid)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()


def test_a_mirrored_picture_gives_the_mirrored_result(network):
    x = torch.rand(2, 3, 40, 57)
    seen, mirrored = network.analyse(x), network.analyse(x.flip(3))
    for name in ("presence", "degree", "remove"):
        torch.testing.assert_close(mirrored[name], seen[name])
    torch.testing.assert_close(network(x.flip(3)).flip(3), network(x), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(x), x, atol=1e-2)
    # It is the mean of two looks that makes it so: training takes one, which a mirrored picture changes.
    network.train()
    assert network.analyse(x)["embedding"].shape[1] == 1
    assert not torch.allclose(network.analyse(x.flip(3))["presence"], network.analyse(x)["presence"], atol=1e-4)


def test_blocks_of_the_trunk_change_nothing_at_first():
    x = torch.rand(2, 4, 5, 6)
    block = Residual(4)
    assert torch.equal(block(x), x)
    torch.nn.init.ones_(block.conv2.weight)
    assert not torch.allclose(block(x), x)
