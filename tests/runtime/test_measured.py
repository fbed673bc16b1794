"""What layers measure on whole pictures is shared by tiles, and a picture that is one tile takes one pass."""

import pytest
import torch

from moir.layers.transposed_attention import TransposedAttention
from moir.metrics import psnr
from moir.models import create_model
from moir.networks.moce_ir_blocks import CrossAttention
from moir.runtime import Engine
from moir.runtime.fast import accelerate

MEASURING = ["test_restormer", "test_lora_restormer", "test_promptir", "test_moce_ir"]
DECIDING = {  # by the layer that a pass begins with
    "test_dehazeformer_l": "patch_embed",
    "test_moce_ir": "patch_embed",
    "test_nafnet": "intro",
    "test_promptir": "patch_embed",
    "test_retinexformer": "body.0.estimator",
}


def make(name):
    torch.manual_seed(0)
    network = create_model(name).eval().requires_grad_(False)
    for parameter in network.parameters():  # so that attention, prompts and experts matter
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def uneven(height, width):
    """A picture whose halves differ: smooth and dark, and noisy and bright."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, height, width, generator=generator)
    x[..., width // 2 :] = torch.linspace(0, 0.3, height)[:, None]
    return x


def count_passes(network, which="patch_embed"):
    """How often the network's first layer has run."""
    passes = []
    network.get_submodule(which).register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


@torch.no_grad()
@pytest.mark.parametrize("name", MEASURING)
def test_what_is_measured_is_what_the_picture_would_measure_itself(name):
    network = make(name)
    x = torch.rand(2, 3, 33, 40)
    context = network.measure(x, network.analyse(x))
    names = [n for n in context if n.endswith(".attention")]
    assert len(names) == sum(isinstance(m, TransposedAttention | CrossAttention) for m in network.modules())
    for n in names:
        assert context[n].shape[0] == 2
        torch.testing.assert_close(context[n].sum(-1), torch.ones(context[n].shape[:-1]))
    assert torch.equal(network(x, context), network(x))
    part = x[..., :16, :16]
    assert not torch.allclose(network(part, context), network(part, network.analyse(x)), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_restormer", "test_moce_ir"])
def test_the_twin_measures_and_uses_the_same(name):
    network = make(name)
    twin = accelerate(network)
    x = torch.rand(2, 3, 33, 40)
    context = network.analyse(x)
    wanted, found = network.measure(x, context), twin.measure(x, context)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)
    part = x[..., 8:24, :24]
    torch.testing.assert_close(twin(part, wanted), network(part, wanted), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(twin(part, wanted), twin(part, context), atol=1e-3)


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_tiles_come_nearer_to_the_whole_picture(engine):
    network = make("test_restormer")
    x = uneven(200, 216)
    tiled = Engine(network, "cpu", "float32", tile=136, engine=engine)
    whole = Engine(network, "cpu", "float32", tile=None, engine=engine).restore(x).pictures
    shared = tiled.restore(x)
    network_alone = make("test_restormer")
    network_alone.measures = False
    alone = Engine(network_alone, "cpu", "float32", tile=136, engine="plain").restore(x)
    assert shared.tiles == alone.tiles > 1
    assert psnr(shared.pictures, whole).item() > psnr(alone.pictures, whole).item() + 3


@torch.no_grad()
@pytest.mark.parametrize(("name", "first"), DECIDING.items())
def test_deciding_and_restoring_in_one_pass_gives_what_two_give(name, first):
    network = make(name)
    x = torch.rand(2, 3, 40, 33)
    context = network.analyse(x)
    assert context
    wanted = network(x, context)
    passes = count_passes(network, first)
    restored, decided = network.restore_whole(x)
    assert len(passes) == 1
    assert torch.equal(restored, wanted)
    assert decided.keys() == context.keys()
    assert all(torch.equal(decided[n], context[n]) for n in context)


@torch.no_grad()
def test_so_does_the_twin():
    twin = accelerate(make("test_moce_ir"))
    x = torch.rand(2, 3, 40, 33)
    context = twin.analyse(x)
    restored, decided = twin.restore_whole(x)
    assert torch.equal(restored, twin(x, context))
    assert decided.keys() == context.keys()
    assert all(torch.equal(decided[n], context[n]) for n in context)


@pytest.mark.parametrize(("name", "first"), DECIDING.items())
def test_the_engine_passes_once_over_a_picture_that_is_one_tile(name, first):
    engine = Engine(make(name), "cpu", "float32", tile=None, engine="plain")
    x = torch.rand(1, 3, 40, 33)
    wanted = engine.restore(x, engine.analyse(x))
    passes = count_passes(engine.network, first)
    got = engine.restore(x)
    assert len(passes) == 1
    assert torch.equal(got.pictures, wanted.pictures)
    assert all(torch.equal(got.context[n], wanted.context[n]) for n in wanted.context)


def test_without_a_context_tiles_are_decided_for_together():
    engine = Engine(make("test_promptir"), "cpu", "float32", tile=136, engine="plain")
    x = uneven(150, 216)
    got = engine.restore(x)
    assert got.tiles > 1
    assert torch.equal(got.pictures, engine.restore(x, engine.analyse(x)).pictures)


def test_a_pass_that_is_not_finite_is_made_again_in_float32(monkeypatch):
    engine = Engine(make("test_moce_ir"), "cpu", "bf16", tile=None, engine="plain")
    x = torch.rand(1, 3, 32, 32)
    whole = engine.network.restore_whole

    def broken(pictures):
        restored, context = whole(pictures)
        return restored * float("nan"), context

    monkeypatch.setattr(engine.network, "restore_whole", broken)
    got = engine.restore(x)
    assert torch.isfinite(got.pictures).all()
    decided = engine.analyse(x)
    assert all(torch.equal(got.context[n], decided[n]) for n in decided)


def test_an_instruction_without_a_context():
    engine = Engine(create_model("test_compact").eval(), "cpu", "float32")
    x = torch.rand(1, 3, 40, 40)
    got = engine.restore(x, types=["rain"])
    assert got.context["remove"].tolist() == [[0, 1, 0, 0, 0, 0, 0, 1]]
    assert torch.equal(got.pictures, engine.restore(x, engine.analyse(x, ["rain"])).pictures)


def test_the_check_of_half_precision_takes_two_passes():
    network = make("test_moce_ir")
    engine = Engine(network, "cpu", "bf16", engine="plain")  # asked for by name, it is not checked
    passes = count_passes(network)
    engine._holds()
    assert len(passes) == 2  # in float32, which also decides, and in the half precision
