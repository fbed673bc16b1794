"""The convolutional bottleneck: where it goes, and how far it looks."""

import pytest
import torch

from moir.adapters import attach, attached, parameter_count
from moir.adapters.convolutional import ConvolutionalAdapter
from moir.base.errors import InvalidValueError
from moir.models import create_model


def test_it_goes_beside_the_finest_blocks():
    network = attach(create_model("test_compact"), "conv", rank=3)
    places = [placement.path for placement in attached(network)["conv"].placements]
    assert places == ["encoder1.0", "decoder1.0"]
    assert parameter_count(network, "conv") == 2 * (2 * 8 * 3 * 9 + 3 + 8)
    everywhere = attach(create_model("test_compact"), "conv", widest=32)
    paths = [placement.path for placement in attached(everywhere)["conv"].placements]
    assert {"encoder1.0", "encoder2.0", "middle.0", "decoder2.0", "decoder1.0"} == set(paths)


def test_it_looks_two_pixels_around_and_no_further():
    torch.manual_seed(0)
    adapter = ConvolutionalAdapter(4, rank=5)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        x = torch.rand(1, 4, 11, 11)
        other = x.clone()
        other[..., 5, 5] += 1
        changed = (adapter.change(x) - adapter.change(other)).abs().amax((0, 1)) > 0
    assert changed[3:8, 3:8].any()
    changed[3:8, 3:8] = False
    assert not changed.any()


def test_impossible_sizes_are_refused():
    with pytest.raises(InvalidValueError, match="rank=0"):
        ConvolutionalAdapter(4, rank=0)
    with pytest.raises(InvalidValueError, match="widest=4: the narrowest block has 8"):
        attach(create_model("test_compact"), "conv", widest=4)
