import sys
import types

import pytest
import torch

from moir.base.errors import MissingExtraError, TensorShapeError
from moir.metrics import lpips
from moir.metrics.lpips import lpips_network


@pytest.fixture(autouse=True)
def forget():
    lpips_network.cache_clear()
    yield
    lpips_network.cache_clear()


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"moir\[perceptual\]\""):
        lpips(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_what_the_package_is_given(monkeypatch):
    """The package itself is heavy; this stands for its interface: pictures in [-1, 1], (B, 1, 1, 1) out."""
    asked = []

    class Distance(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            asked.append(net)

        def forward(self, x, y):
            assert x.min() >= -1
            return (x - y).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    values = lpips(torch.cat([black, white]), torch.cat([white, white]))
    assert values.tolist() == [2, 0]
    assert lpips(black, black, "alex").item() == 0
    assert asked == ["vgg", "alex"]  # each is loaded once
    with pytest.raises(TensorShapeError):
        lpips(black[:, :1], white[:, :1])
