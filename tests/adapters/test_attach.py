"""Every method on every tiny network: starts at nothing, trains everything it has, and can be taken out again."""

import copy
import pickle

import pytest
import torch

from moir.adapters import (
    METHODS,
    adapt_each,
    adapter_parameters,
    adapter_state,
    attach,
    attached,
    detach,
    load_adapter_state,
    merge,
    parameter_count,
    set_active,
)
from moir.adapters.attach import Attachment
from moir.base.errors import CheckpointError, InvalidValueError, UnknownNameError

from .conftest import NETWORKS, OPTIONS, make, move

PAIRS = [(method, name) for method in METHODS for name in NETWORKS if (method, name) != ("fact", "test_unet")]
FEW = [(method, name) for method, name in PAIRS if name in ("test_compact", "test_edt", "test_ipt", "test_nafnet")]
LIKE_OTHERS = ("test_promptir", "test_nafnet_local")  # blocks that other networks have, too
MERGED = [
    (method, name)
    for method, name in PAIRS
    if method in ("lora", "fact", "ssf") and name not in LIKE_OTHERS and (method, name) != ("ssf", "test_ipt")
]


def adapted(method, name, label=None, seed=0):
    network = make(name)
    torch.manual_seed(seed)
    return attach(network, method, label, **OPTIONS.get(method, {}))


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_it_changes_nothing_then_something_and_everything_trains(method, name):
    network = make(name)
    x = torch.rand(1, 3, 16, 16)  # a batch of one
    with torch.no_grad():
        # Of a frozen one: where weights need no gradient, PyTorch may take another way through a linear layer, which
        # rounds differently (2.13, IPT's on a processor with AVX-512).
        base = make(name).requires_grad_(False)(x)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    attach(network, method, **OPTIONS.get(method, {}))
    with torch.no_grad():
        assert torch.equal(network(x), base)

    network.train()
    own = adapter_parameters(network, method)
    trainable = {id(p) for p in network.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in own}
    move(own)
    noise = network.routing_noise if hasattr(network, "routing_noise") else None
    if noise is not None:
        network.routing_noise = "never"
    network(x).square().mean().backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            # A softmax does not see what is added to all that it weighs: one published number is without effect.
            assert parameter.grad.any() or key.endswith("compress.bias"), key
        else:
            assert parameter.grad is None, key
    torch.optim.SGD(own, lr=0.1).step()
    network.eval()
    with torch.no_grad():
        assert not torch.allclose(network(x), base, atol=1e-6)
        set_active(network)
        assert torch.equal(network(x), base)
    detach(network, method)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(("method", "name"), FEW)
def test_its_state_is_all_of_it(method, name):
    first, second = adapted(method, name), adapted(method, name, seed=1)
    move(adapter_parameters(first, method))
    x = torch.rand(1, 3, 16, 16)
    first.train()
    with torch.no_grad():
        first(x)  # moves running statistics
    first.eval()
    state = {key: value.clone() for key, value in adapter_state(first, method).items()}
    if method == "adaptir":
        assert any(key.endswith("running_mean") and value.any() for key, value in state.items())
    with torch.no_grad():
        assert not torch.allclose(second(x), first(x), atol=1e-6)
        load_adapter_state(second, state, method)
        assert torch.equal(second(x), first(x))


@pytest.mark.parametrize(("method", "name"), MERGED)
def test_merged_it_gives_the_same(method, name):
    network = adapted(method, name)
    move(adapter_parameters(network, method))
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        kept = network(x)
        merge(network, method)
        assert not attached(network)
        assert torch.allclose(network(x), kept, atol=1e-4 * float(kept.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_has_adapters_of_its_own(method):
    network = adapted(method, "test_restormer")
    move(adapter_parameters(network, method))
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        y = network(x)
        for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(copied(x), y)
            move(adapter_parameters(copied, method), seed=5)
            assert not torch.equal(copied(x), y)
            assert torch.equal(network(x), y)


@pytest.mark.parametrize("name", ["test_restormer", "test_compact"])
def test_every_picture_of_a_batch_may_have_its_own(name):
    network = adapted("adaptir", name, "rain")
    attach(network, "adaptir", "snow")
    attach(network, "lora", "dark", rank=2)
    for seed, label in enumerate(("rain", "snow", "dark")):
        move(adapter_parameters(network, label), seed)
    x, labels = torch.rand(5, 3, 16, 16), ["snow", None, "rain", "snow", "dark"]
    set_active(network, "rain")
    with torch.no_grad():
        together = adapt_each(network, x, labels, network.analyse(x))
        assert [a.active for a in attached(network).values()] == [True, False, False]
        for picture, label, result in zip(x, labels, together, strict=True):
            set_active(network, *([label] if label else []))
            assert torch.allclose(network(picture[None])[0], result, atol=2e-6), label
        set_active(network, "snow")
        alone = network(x)
        detach(network, "rain")
        assert torch.equal(network(x), alone)
    with pytest.raises(InvalidValueError, match="2 names of adapters for 5"):
        adapt_each(network, x, ["snow", None])


def test_names_in_the_state_dict_are_plain_until_two_meet():
    network = adapted("adaptir", "test_restormer", "rain")
    alone = [key for key in network.state_dict() if "adaptir" in key]
    assert "latent.0.adaptir.head.weight" in alone
    assert alone == list(adapter_state(network, "rain"))
    attach(network, "adaptir", "snow")
    assert "latent.0.adaptir.snow.head.weight" in network.state_dict()
    assert list(adapter_state(network, "snow")) == alone  # in a file, the name does not matter
    detach(network, "snow")
    assert [key for key in network.state_dict() if "adaptir" in key] == alone


def test_another_network_or_size_is_named():
    state = adapter_state(adapted("adaptir", "test_restormer"), "adaptir")
    with pytest.raises(CheckpointError, match=r"another network or size than adaptir on this NAFNet: .*missing"):
        load_adapter_state(adapted("adaptir", "test_nafnet"), state, "adaptir")
    wide = attach(make("test_restormer"), "adaptir", hidden=8)
    with pytest.raises(CheckpointError, match="of another shape"):
        load_adapter_state(wide, state, "adaptir")


def test_wrong_calls_are_answered():
    network = make("test_compact")
    with pytest.raises(UnknownNameError, match="did you mean 'adaptir'"):
        attach(network, "adaptr")
    with pytest.raises(UnknownNameError, match="did you mean 'rank'"):
        attach(network, "lora", rnk=2)
    with pytest.raises(InvalidValueError, match="cannot be named"):
        attach(network, "lora", "a.b")
    with pytest.raises(InvalidValueError, match="no adapter is attached"):
        set_active(network, "lora")
    with pytest.raises(InvalidValueError, match="no place for fact"):
        attach(make("test_unet"), "fact")
    attach(network, "adaptir")
    with pytest.raises(InvalidValueError, match="attached already"):
        attach(network, "adaptir")
    with pytest.raises(UnknownNameError, match="adaptir"):
        parameter_count(network, "adaptr")
    with pytest.raises(InvalidValueError, match="cannot be merged"):
        merge(network, "adaptir")
    assert isinstance(attached(network)["adaptir"], Attachment)


def test_a_shift_of_what_has_no_bias_cannot_be_merged():
    network = adapted("ssf", "test_ipt")
    move(adapter_parameters(network, "ssf"))
    before = adapter_state(network, "ssf")
    with pytest.raises(InvalidValueError, match=r"encoder.layers.0.self_attn has no bias"):
        merge(network, "ssf")
    assert list(adapter_state(network, "ssf")) == list(before)


def test_a_tree_of_networks_says_where_to_attach():
    with pytest.raises(InvalidValueError, match="one of its experts"):
        attach(make("test_unirestorer"), "adaptir")


def test_freezing_can_be_left_out_and_is_undone():
    network = attach(make("test_unet"), "adaptir", freeze=False)
    assert all(p.requires_grad for p in network.parameters())
    attach(network, "lora", rank=2)
    assert [p for p in network.parameters() if p.requires_grad] == adapter_parameters(network, "lora")
    detach(network, "adaptir")
    detach(network, "lora")
    assert all(p.requires_grad for p in network.parameters())


def test_a_place_that_is_something_else_is_refused():
    network = make("test_restormer")
    network.latent[0].adaptir = torch.nn.Identity()
    with pytest.raises(InvalidValueError, match=r"latent.0.adaptir is something else"):
        attach(network, "adaptir")
    assert not attached(network)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_adapt(method):
    network = adapted(method, "test_compact").train()
    x = torch.rand(2, 3, 16, 16)
    target, context = (0.6 * x + 0.3).flip(1), network.analyse(x)
    optimiser = torch.optim.Adam(adapter_parameters(network, method), lr=0.02)
    losses = []
    for _ in range(15):
        loss = (network(x, context) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_half_precision_is_close():
    network = adapted("adaptir", "test_restormer")
    move(adapter_parameters(network, "adaptir"))
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(x).float()
    with torch.no_grad():
        exact = network(x)
    assert -10 * torch.log10((half - exact).square().mean() / exact.square().mean()) > 30
