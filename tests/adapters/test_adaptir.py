"""The AdaptIR module computes what the published one does, and behaves where that one does not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moir.adapters.adaptir import AdaptIR, default_hidden
from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError

from .conftest import move, published_weights


@pytest.mark.parametrize(("dim", "count"), [(576, 29_069), (180, 4_817)])
def test_parameters_are_as_many_as_published(dim, count):
    assert sum(p.numel() for p in AdaptIR(dim).parameters()) == count


@pytest.mark.parametrize(
    ("case", "dim", "layout", "train"),
    [("ipt_eval", 576, "lnc", False), ("ipt_train", 576, "lnc", True), ("edt_eval", 180, "nhwc", False)],
)
def test_outputs_are_the_published_ones(parity, case, dim, layout, train):
    with np.load(parity / f"adaptir_module_{case}.npz") as file:
        stored = {name: torch.from_numpy(file[name]) for name in file}
    module = published_weights(AdaptIR(dim, layout=layout)).train(train)
    with torch.no_grad():
        y = module(stored["x"])
    assert y.shape == stored["y"].shape
    assert (y - stored["y"]).abs().max() < 5e-5
    if train:
        assert torch.allclose(module.BN.running_mean, stored["running_mean"], atol=1e-6)
        assert torch.allclose(module.BN.running_var, stored["running_var"], atol=1e-6)


def test_layouts_hold_the_same_function():
    maps, tokens, last = (published_weights(AdaptIR(8, layout=layout)).eval() for layout in ("nchw", "lnc", "nhwc"))
    x = torch.randn(2, 8, 5, 5)
    y = maps(x)
    assert torch.allclose(tokens(x.flatten(2).permute(2, 0, 1)), y.flatten(2).permute(2, 0, 1), atol=1e-5)
    assert torch.allclose(last(x.permute(0, 2, 3, 1)), y.permute(0, 2, 3, 1), atol=1e-5)
    with pytest.raises(TensorShapeError, match="6 tokens"):
        tokens(torch.randn(6, 2, 8))


def test_it_starts_with_nothing_and_even_gates():
    module, x = AdaptIR(16), torch.randn(2, 16, 6, 7)
    z = module.BN(module.head(x))
    assert torch.equal(module(x), torch.zeros_like(x))
    assert torch.allclose(module.frequency(z), z.abs(), atol=1e-5)  # the published magnitude
    assert torch.allclose(AdaptIR(16, form="paper").frequency(z), z, atol=1e-5)
    assert torch.equal(torch.sigmoid(module.spatial_interaction(z)), torch.full((2, 1, 6, 7), 0.5))


def test_the_papers_form_is_another_function():
    torch.manual_seed(0)
    published, paper = AdaptIR(16).eval(), AdaptIR(16, form="paper").eval()
    missing, unexpected = paper.load_state_dict(published.state_dict(), strict=False)
    assert missing == ["freq_conv.weight", "freq_conv.bias"]
    assert not unexpected
    x = torch.randn(1, 16, 8, 8)
    move([published.tail.weight])
    move([paper.tail.weight])
    assert not torch.allclose(published(x), paper(x), atol=1e-4)


@settings(max_examples=25)
@given(height=st.integers(1, 9), width=st.integers(1, 9), batch=st.integers(1, 2), seed=st.integers(0, 99))
def test_any_size_trains_with_finite_gradients(height, width, batch, seed):
    torch.manual_seed(seed)
    module = AdaptIR(8)
    move(module.parameters(), seed)
    x = torch.randn(batch, 8, height, width, requires_grad=True)
    module(x).square().sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12])
def test_an_empty_spectrum_has_a_finite_gradient(scale):
    module = AdaptIR(8)
    move(module.parameters())
    z = (scale * torch.randn(1, 4, 6, 6)).requires_grad_()
    module.frequency(z).sum().backward()
    assert torch.isfinite(z.grad).all()
    assert z.grad.abs().max() < 1e3


def test_the_frequency_expert_stays_in_float32_under_autocast():
    module = AdaptIR(8).eval()
    move(module.parameters())
    x = torch.randn(1, 8, 7, 9)  # no power of two
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(x).float()
    exact = module(x)
    assert (half - exact).norm() < 0.1 * exact.norm()


def test_wrong_values_are_named():
    with pytest.raises(InvalidValueError, match="hidden=3"):
        AdaptIR(8, hidden=3)
    with pytest.raises(UnknownNameError, match="published"):
        AdaptIR(8, form="publised")
    assert [default_hidden(dim) for dim in (8, 48, 96, 192)] == [4, 6, 8, 12]
