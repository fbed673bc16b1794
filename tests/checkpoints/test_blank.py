"""Networks that are made for weights about to be read."""

import pytest
import torch
from torch import nn

from moir.checkpoints.blank import blank_weights
from moir.checkpoints.safetensors import load_into
from moir.models import create_model, list_models


@pytest.mark.parametrize("name", list_models("test_*", tests=True))
def test_a_network_made_blank_is_the_same_once_its_weights_are_read(name):
    torch.manual_seed(0)
    wanted = create_model(name)
    with blank_weights():
        blank = create_model(name)
    assert blank.options == wanted.options
    assert any(not value.any() for value in blank.state_dict().values())
    load_into(blank, wanted.state_dict(), "the test")
    given, read = (dict(network.named_buffers()) for network in (wanted, blank))
    assert given.keys() == read.keys()  # also those that no state dict has
    assert all(torch.equal(given[n], read[n]) for n in given)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(blank.eval()(x), wanted.eval()(x))


@pytest.mark.parametrize("fill", [nn.init.kaiming_normal_, nn.init.trunc_normal_, nn.init.xavier_uniform_])
def test_initialisers_draw_nothing(fill):
    state = torch.get_rng_state()
    with blank_weights():
        assert not fill(torch.ones(3, 4)).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_constants_are_kept_and_the_mode_ends():
    with blank_weights():
        norm = nn.LayerNorm(3)
    assert norm.weight.tolist() == [1.0, 1.0, 1.0]
    assert nn.Linear(4, 4).weight.any()


def test_it_ends_with_an_error_too():
    with pytest.raises(ZeroDivisionError), blank_weights():
        raise ZeroDivisionError
    assert nn.Linear(4, 4).weight.any()
