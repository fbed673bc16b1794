"""Every network of the registry keeps the contract; each is tested in its tiny configuration."""

import copy

import pytest
import torch

from moir.base.errors import MoirError, TensorShapeError, UnknownNameError
from moir.models import _BUILDERS, create_model, list_models
from moir.networks.base import select
from moir.restore import Restorer

TINY = list_models("test_*", tests=True)
FULL = list_models()


def make(name, seed=0):
    torch.manual_seed(seed)
    network = create_model(name).eval()
    with torch.no_grad():  # away from initial zeros, so that every path matters
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    return network


def test_every_architecture_has_a_tiny_configuration():
    modules = {_BUILDERS[name].split(":")[0] for name in FULL}
    tiny = {_BUILDERS[name].split(":")[0] for name in TINY}
    assert modules == tiny


@pytest.mark.parametrize("name", FULL)
def test_full_sizes_build_without_memory(name):
    with torch.device("meta"):
        network = create_model(name)
    assert sum(p.numel() for p in network.parameters()) > 5e5


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 40), (64, 8)])
@torch.inference_mode()
def test_any_size(name, size):
    network = make(name)
    output = network(torch.rand(1, 3, *size))
    assert output.shape == (1, 3, *size)
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", TINY)
def test_it_restores_through_the_runtime(name):
    network = make(name)
    x = torch.rand(3, 40, 33)
    restorer = Restorer(network, name, device="cpu", precision="float32")
    result = restorer(x)
    torch.testing.assert_close(result.tensor, network(x[None])[0].clamp(0, 1), atol=1e-5, rtol=1e-4)
    assert restorer.inspect(x).expert == result.expert


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_a_batch_gives_what_its_pictures_give_one_by_one(name):
    network = make(name)
    pictures = torch.rand(3, 3, 40, 24)
    pictures[1] *= 0.2
    together = network(pictures)
    alone = torch.cat([network(picture[None]) for picture in pictures])
    assert torch.allclose(together, alone, atol=2e-6)


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_evaluation_is_deterministic(name):
    network = make(name)
    x = torch.rand(2, 3, 32, 48)
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_the_context_of_a_picture_is_what_forward_decides_itself(name):
    network = make(name)
    x = torch.rand(2, 3, 32, 48)
    context = network.analyse(x)
    assert torch.allclose(network(x, context), network(x), atol=1e-6)
    one = network(x[1:], select(context, [1]))
    assert torch.allclose(one, network(x)[1:], atol=2e-6)


@pytest.mark.parametrize("name", TINY)
def test_saved_weights_give_the_same_output(name, tmp_path):
    from moir.checkpoints import load_into, read_tensors, write_tensors

    network = make(name)
    write_tensors(tmp_path / "w.safetensors", network.state_dict())
    again = make(name, seed=1)
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert not torch.allclose(again(x), network(x), atol=1e-5)
        load_into(again, read_tensors(tmp_path / "w.safetensors")[0], "w")
        assert torch.equal(again(x), network(x))


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_bf16_is_close_to_float32(name):
    network = make(name)
    x = torch.rand(1, 3, 40, 40)
    context = network.analyse(x)
    exact = network(x, context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(x, context).float()
    error = (exact - half).square().mean()
    assert -10 * torch.log10(error / exact.square().mean()) > 30


@pytest.mark.parametrize("name", TINY)
def test_backward_reaches_every_trainable_parameter(name):
    network = make(name).train()
    x = torch.rand(2, 3, 32, 32)
    context = network.analyse(x)
    loss = network(x).square().mean()
    loss = loss + sum(value.float().square().mean() for value in context.values() if value.requires_grad)
    if network.balance_loss is not None:
        loss = loss + network.balance_loss
    loss.backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", TINY)
def test_a_network_can_be_copied_right_after_a_training_step(name):
    network = make(name).train()
    network(torch.rand(2, 3, 16, 16)).mean().backward()
    copied = copy.deepcopy(network)
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8)])
def test_wrong_shapes_are_named(name, shape):
    with pytest.raises(TensorShapeError, match=r"\(B, 3, H, W\)"):
        make(name)(torch.rand(shape))


def test_unknown_names_are_answered_with_the_near_miss():
    with pytest.raises(UnknownNameError, match="did you mean 'moce_ir_s'"):
        create_model("moce_irs")
    with pytest.raises(UnknownNameError, match="'width'"):
        create_model("test_compact", widht=4)


@pytest.mark.parametrize("name", TINY)
def test_an_instruction_is_followed_or_refused(name):
    network = make(name)
    x = torch.rand(1, 3, 32, 32)
    context = network.analyse(x)
    try:
        told = network.instruct(context, ["rain"])
    except MoirError as error:
        assert "cannot be told" in str(error)  # noqa: PT017 - either is right, depending on the network
    else:
        assert not torch.equal(network(x, told), network(x, context))
        with pytest.raises(UnknownNameError, match="rain"):
            network.instruct(context, ["rian"])
