"""Adapters as files."""

import pytest
import torch

from moir.adapted import fingerprint, load_adapter, read_adapter_facts, save_adapter
from moir.adapters import adapter_parameters, attach, attached, set_active
from moir.base.errors import CheckpointError, OutputExistsError
from moir.checkpoints import write_tensors
from moir.models import create_model


def network(model="test_restormer", seed=0, **options):
    torch.manual_seed(seed)
    return create_model(model, **options).eval()


@pytest.fixture
def saved(tmp_path):
    """An adapted network, and its adapter's file."""
    adapted = attach(network(), "adaptir", "rain", hidden=4)
    with torch.no_grad():
        for parameter in adapter_parameters(adapted, "rain"):
            parameter.add_(0.1 * torch.randn(parameter.shape))
        adapted.train()(torch.rand(2, 3, 16, 16))  # moves running statistics
    save_adapter(tmp_path / "rain.safetensors", adapted, "rain", "test_restormer", {"pairs": 20})
    return adapted.eval(), tmp_path / "rain.safetensors"


def test_it_comes_back_on_a_fresh_network(saved):
    adapted, path = saved
    fresh = network()
    facts = load_adapter(fresh, path)
    assert (facts.method, facts.options, facts.model, facts.notes) == (
        "adaptir",
        {"hidden": 4},
        "test_restormer",
        {"pairs": 20},
    )
    assert facts == read_adapter_facts(path)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(fresh(x), adapted(x))
        set_active(fresh)
        assert torch.equal(fresh(x), network()(x))
    load_adapter(fresh, path, "again")
    assert list(attached(fresh)) == ["rain", "again"]
    with pytest.raises(OutputExistsError):
        save_adapter(path, fresh, "rain", "test_restormer")


def test_the_fingerprint_is_that_of_the_frozen_network(saved):
    adapted, _ = saved
    assert fingerprint(adapted) == fingerprint(network()) != fingerprint(network(seed=1))


@pytest.mark.parametrize(
    ("other", "any_base", "says"),
    [
        (lambda: network(seed=1), False, "belongs to test_restormer with the weights"),
        (lambda: network("test_nafnet"), True, "another network or size"),
        (lambda: network(dim=16), True, "another network or size"),
    ],
)
def test_another_network_is_refused_and_left_as_it_was(saved, other, any_base, says):
    wrong = other()
    before = fingerprint(wrong)
    with pytest.raises(CheckpointError, match=says):
        load_adapter(wrong, saved[1], any_base=any_base)
    assert not attached(wrong)
    assert fingerprint(wrong) == before
    assert all(p.requires_grad for p in wrong.parameters())


def test_other_weights_may_be_allowed(saved):
    load_adapter(network(seed=1), saved[1], any_base=True)


def test_another_file_is_named(tmp_path, saved):
    write_tensors(tmp_path / "plain.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="is not an adapter"):
        load_adapter(network(), tmp_path / "plain.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved[1].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_adapter(network(), cut)
