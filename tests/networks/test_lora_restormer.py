import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moir.base.errors import CheckpointError, InvalidValueError
from moir.networks.lora_restormer import lora_restormer
from moir.networks.lora_restormer import test_lora_restormer as tiny_lora_restormer
from moir.networks.restormer import test_restormer as tiny_restormer


def randomise(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))


@pytest.mark.parametrize("file", ["lora_restormer_r8a16.npz", "lora_restormer_r8a16_unmerged.npz"])
@torch.no_grad()
def test_published_numbers(file: str, parity: Path, fill: Callable[..., None]) -> None:
    model = lora_restormer()
    fill(model, 0.7, lora_B=0.1)
    with np.load(parity / file) as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    torch.testing.assert_close(model.train("unmerged" in file)(x), y, rtol=0, atol=1e-5)


def test_published_names_and_shapes(expert_shapes: Callable[[str], dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        model = lora_restormer()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == expert_shapes("l2_experts.3.")


def test_published_counts(gmacs: Callable[[torch.nn.Module], float]) -> None:
    with torch.device("meta"):
        model = lora_restormer()
    assert sum(p.numel() for p in model.parameters()) == 31_771_300
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 5_674_756
    low_rank = sum(m.conv.weight.numel() * m.lora_A.shape[0] for m in model.modules() if hasattr(m, "lora_A"))
    assert gmacs(model) == pytest.approx(154.882 + low_rank / 1e9, abs=0.002)


@torch.no_grad()
def test_saving_after_evaluation_never_merges_twice() -> None:
    model, x = tiny_lora_restormer(), torch.rand(1, 3, 16, 24)
    randomise(model)
    before = copy.deepcopy(model.state_dict())
    outputs = [model.train()(x), model.eval()(x), model.train()(x), model.eval()(x)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for _ in range(2):  # saved after evaluation, loaded, evaluated, and again
        again = tiny_lora_restormer().eval()
        again.load_state_dict(model.state_dict())
        outputs.append(again(x))
        model = again
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@torch.no_grad()
def test_one_change_is_the_scaled_product() -> None:
    model = tiny_lora_restormer(r=2, lora_alpha=6)
    randomise(model)
    layer = model.encoder_level2[0].attn.qkv_dwconv
    product = layer.lora_B.numpy() @ layer.lora_A.numpy()
    change = (layer.effective_weight() - layer.conv.weight).numpy()
    np.testing.assert_allclose(change.ravel(), 3 * product.ravel(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_fresh_one_on_a_base_computes_what_the_base_does() -> None:
    base, x = tiny_restormer(bias=True).eval(), torch.rand(1, 3, 16, 24)
    randomise(base)
    model = tiny_lora_restormer(bias=True).eval()
    model.load_base(base.state_dict())
    model.load_state_dict({k: v for k, v in base.state_dict().items() if k in model.adapted_state()}, strict=False)
    torch.testing.assert_close(model(x), base(x), rtol=0, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight is missing"):
        model.load_base({})
    with pytest.raises(CheckpointError, match=r"has shape \(16, 3, 3, 3\)"):
        model.load_base(tiny_restormer(dim=16, bias=True).state_dict())


@torch.no_grad()
def test_merged_it_is_a_plain_restormer() -> None:
    model, x = tiny_lora_restormer(LayerNorm_type="BiasFree").eval(), torch.rand(1, 3, 16, 24)
    randomise(model)
    plain = tiny_restormer(LayerNorm_type="BiasFree").eval()
    plain.load_state_dict(model.merged_state())
    torch.testing.assert_close(plain(x), model(x), rtol=0, atol=1e-5)


def test_training_changes_what_it_says_and_nothing_else() -> None:
    model = tiny_lora_restormer()
    randomise(model)
    model.requires_grad_(False)
    model.freeze_base()
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.rand(2, 3, 16, 16)).square().mean().backward()
    optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(model.adapted_state())
    kinds = {name.rpartition(".")[2] for name in changed if "norm" not in name}
    assert kinds == {"lora_A", "lora_B", "temperature"}


def test_a_base_of_its_own_size_is_needed() -> None:
    with pytest.raises(InvalidValueError, match="rank of 0"):
        tiny_lora_restormer(r=0)
