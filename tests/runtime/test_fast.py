import pytest
import torch

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.metrics import psnr
from moir.models import create_model
from moir.networks.moce_ir_expert import window_circular_convolution
from moir.runtime import Engine
from moir.runtime import engine as engine_module
from moir.runtime.fast import accelerate, layout
from moir.runtime.fast.window import circular_convolution

CASES = [
    ("test_moce_ir", {}),
    ("test_moce_ir", {"topk": 2}),
    ("test_restormer", {}),
    ("test_restormer", {"LayerNorm_type": "BiasFree", "bias": True}),
    ("test_lora_restormer", {}),
    ("test_compact", {}),
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in CASES]


def build(name, **options):
    """A network whose every parameter is at work: fresh ones leave norms, biases and low-rank changes neutral."""
    torch.manual_seed(0)
    network = create_model(name, **options).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.03 * torch.randn_like(parameter))
    return network


def twin_of(network, dtype=torch.float32):
    twin = accelerate(network, dtype)
    assert twin is not None
    return twin


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("size", [(32, 48), (37, 53), (1, 1), (3, 70)])
def test_float32_gives_what_the_network_gives(name, options, size):
    network = build(name, **options)
    x = torch.rand(1, 3, *size)
    expected = network(x)
    assert (expected - x).abs().mean() > 0.01  # the network does something
    assert torch.allclose(twin_of(network)(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_bf16_is_close_to_the_network_in_float32(name, options):
    network = build(name, **options)
    x = torch.rand(1, 3, 48, 64)
    context = network.analyse(x)
    result = twin_of(network, torch.bfloat16)(x, context)
    assert result.dtype is torch.float32
    assert psnr(result, network(x, context)).item() >= 45


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_batch_gives_what_its_pictures_give_and_again_the_same(name, options):
    twin = twin_of(build(name, **options))
    x = torch.rand(3, 3, 24, 40)
    together = twin(x)
    assert torch.equal(together, torch.cat([twin(one) for one in x.split(1)]))
    assert torch.equal(together, twin(x))


@pytest.mark.parametrize("name", ["test_moce_ir", "test_compact"])
def test_decisions_are_those_of_the_network_and_either_takes_the_others(name):
    network = build(name)
    twin = twin_of(network)
    x = torch.rand(2, 3, 40, 56)
    own, other = network.analyse(x), twin.analyse(x)
    assert own.keys() == other.keys()
    for key, value in own.items():
        if value.is_floating_point():
            assert torch.allclose(other[key], value, atol=1e-4)
        else:
            assert torch.equal(other[key], value)
    assert torch.allclose(twin(x, own), network(x, other), atol=1e-4)
    tile = x[:1, :, :16, :24]
    of_first = {key: value[:1] for key, value in own.items()}
    assert torch.allclose(twin(torch.cat([tile, tile]), of_first), network(tile, of_first), atol=1e-4)


@pytest.mark.parametrize("expert", range(4))
def test_every_expert_is_the_networks(expert):
    network = build("test_moce_ir")
    x = torch.rand(1, 3, 72, 88)
    context = dict(network.analyse(x))
    for key, value in context.items():
        if key.endswith(".experts"):
            context[key] = torch.full_like(value, expert)
    twin = twin_of(network)
    result = twin(x, context)
    assert torch.allclose(result, network(x, context), atol=1e-4)
    assert {route.item() for route in twin.routes.values()} == {expert}


@pytest.mark.parametrize("name", ["test_moce_ir", "test_restormer"])
@pytest.mark.parametrize("size", [1, 4096])
def test_the_size_of_strips_changes_nothing(name, size, monkeypatch):
    network = build(name)
    x = torch.rand(1, 3, 72, 40)
    monkeypatch.setattr(layout, "STRIP_BYTES", size)
    assert torch.allclose(twin_of(network)(x), network(x), atol=1e-4)


@pytest.mark.parametrize("window", [4, 8, 16, 32])
@pytest.mark.parametrize("size", [(32, 64), (9, 37)])
def test_circular_convolution_in_windows(window, size):
    q, k = torch.randn(2, 1, 5, *size)
    expected = window_circular_convolution(q, k, window)
    q, k = (t.contiguous(memory_format=torch.channels_last) for t in (q, k))
    assert torch.allclose(circular_convolution(q, k, window), expected, atol=1e-4)


def test_strips_cover_every_row_once_and_keep_to_the_grid():
    x = torch.rand(1, 4, 100, 16)
    strips = list(layout.strips(x, 1024, halo=3, multiple=8))
    assert len(strips) > 2
    assert [row for s in strips for row in range(s.start, s.stop)] == list(range(100))
    assert all(s.start % 8 == 0 for s in strips)
    for strip in strips:
        assert torch.equal(strip.crop(strip.widened(x)), strip.of(x))


def test_weights_are_taken_as_they_are_now():
    network = build("test_restormer")
    x = torch.rand(1, 3, 16, 16)
    twin = twin_of(network)
    before = twin(x)
    network.output.weight.mul_(2)
    assert torch.equal(twin(x), before)
    assert torch.allclose(twin_of(network)(x), network(x), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_unet", {}),
        ("test_moce_ir", {"routing_noise": "always"}),
        ("test_moce_ir", {"expert_depth": "stacked", "depth_type": 2}),
        ("test_compact", {"adapter": "lora"}),
        ("test_restormer", {"adapter": "ssf"}),
    ],
)
def test_networks_that_compute_something_else_have_no_twin(name, options):
    assert accelerate(create_model(name, **options)) is None


def test_a_hook_or_a_subclass_has_no_twin():
    network = create_model("test_restormer")
    network.latent.register_forward_hook(lambda module, args, output: output * 2)
    assert accelerate(network) is None

    class Other(type(create_model("test_compact"))):
        pass

    assert accelerate(Other(width=8)) is None


def test_bad_input():
    network = build("test_moce_ir")
    with pytest.raises(InvalidValueError, match="float16"):
        accelerate(network, torch.float16)
    twin = twin_of(network)
    with pytest.raises(TensorShapeError, match="colour"):
        twin(torch.rand(1, 1, 8, 8))
    with pytest.raises(InvalidValueError, match="frequency"):
        twin(torch.rand(1, 3, 8, 8), {"remove": torch.zeros(1, 8)})
    with pytest.raises(InvalidValueError, match="3 pictures"):
        twin(torch.rand(2, 3, 8, 8), network.analyse(torch.rand(3, 3, 8, 8)))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_engine_takes_the_twin_and_gives_the_same(precision, photograph):
    network = build("test_moce_ir")
    x = photograph[None, :, :96, :128]
    plain = Engine(network, "cpu", "float32", engine="plain")
    fast = Engine(network, "cpu", precision)
    assert (plain.engine, fast.engine) == ("plain", "fast")
    context = plain.analyse(x)
    for key, value in fast.analyse(x).items():
        assert torch.allclose(value.float(), context[key].float(), atol=1e-4)
    error = psnr(fast.restore(x, context).pictures, plain.restore(x, context).pictures).item()
    assert error >= (80 if precision == "float32" else 45)


def test_tiles_of_the_engine_share_the_route(photograph):
    network = build("test_moce_ir")
    x = torch.nn.functional.interpolate(photograph[None, :, :48, :96], size=(48, 448))
    fast = Engine(network, "cpu", "float32", tile=384, engine="fast")
    plain = Engine(network, "cpu", "float32", tile=384, engine="plain")
    context = fast.analyse(x)
    ours, theirs = fast.restore(x, context), plain.restore(x, context)
    assert ours.tiles == theirs.tiles > 1
    assert torch.allclose(ours.pictures, theirs.pictures, atol=1e-4)


def test_the_engine_checks_a_half_precision_against_the_definition(monkeypatch):
    monkeypatch.setattr(engine_module, "choose_precision", lambda name, device: torch.bfloat16)
    network = build("test_restormer")
    assert Engine(network, "cpu").precision == "bf16"
    wrong = build("test_restormer")
    wrong.output.weight.mul_(-1)
    monkeypatch.setattr(engine_module, "accelerate", lambda network, dtype: twin_of(wrong, dtype))
    assert Engine(network, "cpu").precision == "float32"


def test_engines_that_are_not_there():
    with pytest.raises(UnknownNameError, match="fast"):
        Engine(create_model("test_compact"), "cpu", engine="fats")
    with pytest.raises(InvalidValueError, match="no fast twin"):
        Engine(create_model("test_unet"), "cpu", engine="fast")
    with pytest.raises(InvalidValueError, match="CUDA graphs"):
        Engine(create_model("test_unet"), "cpu", engine="graphs")
    assert Engine(create_model("test_unet"), "cpu").engine == "plain"
