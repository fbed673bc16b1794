"""Our networks through spandrel where it can be imported; which state dict is whose, everywhere."""

import sys

import pytest
import torch

import moir
from moir.base.errors import MissingExtraError
from moir.models import WEIGHTS, create_model, list_models, shipped
from moir.plugins.spandrel import FAMILIES, install

try:
    import spandrel
except (ImportError, RuntimeError):  # RuntimeError: a torchvision that was built for another torch
    spandrel = None

needs_spandrel = pytest.mark.skipif(
    spandrel is None, reason="spandrel is not installed, or its torchvision does not fit"
)
UNCHANGED = spandrel and spandrel.MAIN_REGISTRY.copy()
OURS = {
    "test_compact": "moir-Compact",
    "test_moce_ir": "moir-MoCE-IR",
    "test_promptir": "moir-PromptIR",
    "test_dehazeformer_l": "moir-DehazeFormer",
}


def tiny(name):
    """A tiny network with weights that do something."""
    torch.manual_seed(0)
    network = create_model(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return network.eval()


@pytest.mark.parametrize("name", list_models("test_*", tests=True))
def test_each_state_dict_has_one_family_or_none(name):
    state = create_model(name).state_dict()
    assert [family.id for family in FAMILIES if family.detects(state)] == ([OURS[name]] if name in OURS else [])


@pytest.mark.parametrize("name", OURS)
def test_the_network_is_rebuilt_from_its_state_dict(name, photograph):
    network = tiny(name)
    state = network.state_dict()
    (family,) = (family for family in FAMILIES if family.detects(state))
    rebuilt = family.build(state)
    rebuilt.load_state_dict(state)
    assert not rebuilt.training
    x = photograph[None, :, :40, :33]
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(x), network(x))


def test_other_sizes_of_compact_are_read_from_shapes():
    options = {
        "width": 8,
        "encoder_blocks": (1, 2),
        "middle_blocks": 4,
        "decoder_blocks": (3, 5),
        "embedding": 12,
        "estimator_width": 6,
    }
    state = create_model("compact", **options).state_dict()
    rebuilt = FAMILIES[0].build(state)
    rebuilt.load_state_dict(state)
    assert rebuilt.options == options


def test_without_spandrel(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingExtraError, match=r"moir\[peers\]"):
        install()


@pytest.fixture
def registry():
    """A copy of spandrel's registry with ours in it."""
    copy = UNCHANGED.copy()
    assert install(copy) == [family.id for family in FAMILIES]
    assert install(copy) == []
    return copy


@needs_spandrel
@pytest.mark.parametrize("name", OURS)
def test_a_file_gives_what_moir_gives(name, registry, photograph, tmp_path):
    network = tiny(name)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    descriptor = spandrel.ModelLoader(registry=registry).load_from_file(path)
    assert descriptor.architecture.id == OURS[name]
    assert descriptor.purpose == "Restoration"
    x = photograph[:, :41, :50]  # no multiple of anything
    expected = moir.Restorer(network, name, device="cpu", precision="float32")(x).tensor
    assert (expected - x).abs().mean() > 1e-3
    torch.testing.assert_close(descriptor(x[None])[0], expected)


@needs_spandrel
@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_through_the_main_registry(name, photograph):
    install()
    descriptor = spandrel.ModelLoader().load_from_file(WEIGHTS / f"{name}.safetensors")
    assert (descriptor.scale, descriptor.input_channels, descriptor.output_channels) == (1, 3, 3)
    assert descriptor.tiling == spandrel.ModelTiling.INTERNAL
    assert descriptor.size_requirements.none
    restorer = moir.load(name, device="cpu", precision="float32")
    for x in (photograph, photograph[:, :97, :130].contiguous(), photograph[:, :1, :3].contiguous()):
        torch.testing.assert_close(descriptor(x[None])[0], restorer(x).tensor)


@needs_spandrel
def test_large_pictures_are_cut_into_tiles_that_share_one_analysis(registry, monkeypatch):
    from moir.runtime import engine

    network = tiny("test_compact")
    descriptor = registry.load(network.state_dict())
    x = torch.rand(1, 3, 300, 420)
    whole = descriptor(x)
    analysed = []
    analyse = type(descriptor.model).analyse

    def counting(self, x):
        analysed.append(x.shape)
        return analyse(self, x)

    monkeypatch.setattr(engine, "tile_side", lambda *arguments: 192)
    monkeypatch.setattr(type(descriptor.model), "analyse", counting)
    torch.testing.assert_close(descriptor(x), whole, atol=1e-3, rtol=0)
    assert analysed == [x.shape]


@needs_spandrel
def test_weights_cannot_be_cast_to_half_precision(registry):
    descriptor = registry.load(tiny("test_compact").state_dict())
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(spandrel.UnsupportedDtypeError):
            descriptor.to(dtype)


@needs_spandrel
def test_what_spandrel_knows_stays_with_it(registry):
    assert registry.load(create_model("test_nafnet").state_dict()).architecture.id == "NAFNet"
