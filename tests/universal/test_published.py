"""The published numbers, names and counts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moir.models import create_model
from moir.universal.daclip import DaClip
from moir.universal.daclip_weights import extractor_options
from moir.universal.losses import BALANCE
from moir.universal.network import UniRestorer
from moir.universal.opening import EXTRACTOR
from moir.universal.router import Router, level_balance

Fill = Callable[..., None]


@pytest.fixture(scope="module")
def published() -> UniRestorer:
    with torch.device("meta"):
        network = create_model("unirestorer")
    assert isinstance(network, UniRestorer)
    return network


def test_names_and_shapes(published: UniRestorer, published_shapes: dict[str, tuple[int, ...]]) -> None:
    own = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    assert own == published_shapes
    assert len(own) == 18_471


def test_counts(published: UniRestorer) -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(published) == 1_130_961_248
    assert count(published.daclip_model) == 246_213_634
    assert count(published.daclip_model.visual_control) == 94_936_320
    assert sum(value.numel() for value in published.state_dict().values()) == 1_219_402_340
    assert sum(count(expert) for expert in published.experts) == 882_098_524
    assert count(Router()) == 2_649_090


def test_only_the_router_trains(published: UniRestorer) -> None:
    trained = {name.split(".")[0] for name, p in published.named_parameters() if p.requires_grad}
    assert trained == {"mu", "sigma", "lf_gate", "layer_gate"}


def test_the_extractor_is_told_by_its_shapes(published_shapes: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        extractor = DaClip(**extractor_options(published_shapes, EXTRACTOR))
    assert sum(p.numel() for p in extractor.parameters()) == 246_213_634


@torch.no_grad()
def test_router_numbers(parity: Path, fill: Fill) -> None:
    router = Router().eval()
    fill(router, gain=2.0)
    with np.load(parity / "router.npz") as data:
        wanted = {name: torch.from_numpy(data[name]) for name in data.files}
    route = router(wanted["z"])
    torch.testing.assert_close(route.mu, wanted["mu"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(route.log_variance, wanted["logvar"], rtol=1e-5, atol=1e-4)
    assert torch.equal(route.leaf, wanted["lf_idx"][:, 0])
    assert torch.equal(route.level, wanted["layer_idx"][:, 0])
    torch.testing.assert_close(route.level_probability, wanted["layer_probs"], rtol=0, atol=1e-5)
    for probability, chosen, gates in (
        (route.leaf_probability, route.leaf, wanted["lf_gates"]),
        (route.level_probability, route.level, wanted["layer_gates"]),
    ):
        only = torch.zeros_like(gates).scatter(1, chosen[:, None], probability.gather(1, chosen[:, None]))
        torch.testing.assert_close(only, gates, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        BALANCE * level_balance(route.level_probability), wanted["aux"].view(()), rtol=1e-5, atol=0
    )


@torch.no_grad()
def test_degradation_features_of_the_controller_alone(parity: Path, fill: Fill) -> None:
    controller = DaClip(parts="controller").eval()
    fill(controller)
    with np.load(parity / "daclip_vitb32.npz") as data:
        wanted = torch.from_numpy(data["degra_features"])
    torch.testing.assert_close(controller(_input()), wanted, rtol=0, atol=2e-5)


@pytest.mark.slow  # a third of a thousand million random numbers
@torch.no_grad()
def test_both_features_of_the_whole_wrapper(parity: Path, fill: Fill) -> None:
    wrapper = DaClip().eval()
    fill(wrapper)
    found = wrapper.encode_image(_input())
    with np.load(parity / "daclip_vitb32.npz") as data:
        torch.testing.assert_close(found.content, torch.from_numpy(data["image_features"]), rtol=0, atol=2e-5)
        torch.testing.assert_close(found.degradation, torch.from_numpy(data["degra_features"]), rtol=0, atol=2e-5)


def _input() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(11).rand(2, 3, 224, 224).astype(np.float32) * 4 - 2)
