"""MoCE-IR: the graphs choose the same experts, and restore by the experts that they are given."""

import pytest
import torch

from moir.export import export, load_exported

from .conftest import make
from .test_networks import compare


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    network, card = make("test_moce_ir")
    folder = tmp_path_factory.mktemp("exports") / "moce_ir"
    export(network, folder, card, size=40)
    return network, load_exported(folder), folder


def test_graphs_give_what_the_network_gives(routed):
    compare(routed[0], routed[2])


def test_graphs_choose_the_same_experts_for_pictures_that_differ(routed):
    network, exported, _ = routed
    x = torch.rand(6, 3, 40, 48) * torch.linspace(0.05, 1, 6).view(6, 1, 1, 1)
    x[3:] = x[3:].mean(dim=(2, 3), keepdim=True)
    with torch.no_grad():
        context = network.analyse(x)
    found = exported.analyse(x)
    experts = [name for name in context if name.endswith(".experts")]
    assert len(experts) == 3
    for name in experts:
        assert found[name].dtype == torch.int64
        assert torch.equal(found[name], context[name])


def test_another_choice_of_experts_gives_what_the_network_gives_with_it(routed):
    network, exported, _ = routed
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        context = dict(network.analyse(x))
        own = network(x, context)
        for name in context:
            if name.endswith(".experts"):
                context[name] = torch.arange(4)[:, None]  # every expert once
        wanted = network(x, context)
    # Untrained experts differ little, but ten times as much as graph and network do.
    assert (own - wanted).abs().max() > 1e-5
    torch.testing.assert_close(exported.forward(x, context), wanted, atol=1e-6, rtol=0)
