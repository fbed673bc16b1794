"""Networks whose tiles share statistics of the whole picture."""

import pytest
import torch

from moir.export import export, load_exported

from .conftest import make
from .test_networks import compare


@pytest.mark.parametrize("name", ["test_retinexformer", "test_dehazeformer_l"])
def test_graphs_give_what_the_network_gives(name, tmp_path):
    network, card = make(name)
    export(network, tmp_path / "graphs", card, size=40)
    compare(network, tmp_path / "graphs")


def test_a_tile_uses_the_context_of_its_picture(tmp_path):
    network, card = make("test_nafnet")
    export(network, tmp_path / "graphs", card, size=40)
    exported = load_exported(tmp_path / "graphs")
    picture = torch.rand(1, 3, 64, 64)
    picture[..., 32:] *= 0.2
    context = exported.analyse(picture)
    tiles = torch.cat([picture[..., :32], picture[..., 32:]])  # two tiles of one picture
    with torch.no_grad():
        wanted = network(tiles, network.analyse(picture))
    torch.testing.assert_close(exported.forward(tiles, context), wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(exported.forward(tiles), wanted, atol=1e-5)  # tiles that decide for themselves differ
