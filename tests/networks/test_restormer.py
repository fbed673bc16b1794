import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.layers.padding import pad_to_multiple
from moir.networks.restormer import restormer
from moir.networks.restormer import test_restormer as tiny_restormer


def fill(model: torch.nn.Module) -> None:
    """Weights as a function of names and shapes alone: the rule of the parity files."""
    for name, value in model.state_dict().items():
        g = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape)).astype(np.float32)
        if value.dim() <= 1:
            weight = 1 + 0.1 * g if name.endswith("weight") else 0.1 * g
        elif name.endswith("temperature"):
            weight = 1 + 0.1 * g
        else:
            weight = 0.7 * g / np.sqrt(np.prod(value.shape[1:]))
        value.copy_(torch.from_numpy(np.asarray(weight, np.float32)))


@torch.no_grad()
def test_published_numbers(parity: Path) -> None:
    model = restormer().eval()
    fill(model)
    with np.load(parity / "restormer_withbias.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    torch.testing.assert_close(model(x), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("expert", "norm", "count"),
    [("l0_experts.0.", "WithBias", 26_126_644), ("l1_experts.0.", "BiasFree", 26_111_668)],
)
def test_published_names_and_shapes(expert: str, norm: str, count: int, parity: Path) -> None:
    keys = json.loads((parity / "unirestorer_keys.json").read_text())["keys"]
    wanted = {k.removeprefix(expert): v["shape"] for k, v in keys.items() if k.startswith(expert)}
    with torch.device("meta"):
        model = restormer(LayerNorm_type=norm)
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == wanted
    assert sum(p.numel() for p in model.parameters()) == count


def test_published_counts() -> None:
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in restormer(LayerNorm_type=n).parameters()) for n in ("WithBias", "BiasFree")]
    assert sizes == [26_126_644, 26_111_668]


@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
@torch.no_grad()
def test_batch_equals_singles_at_any_size(norm: str) -> None:
    model = tiny_restormer(LayerNorm_type=norm).eval()
    for height, width in [(1, 1), (7, 13), (33, 40)]:
        x = torch.rand(3, 3, height, width)
        output = model(x)
        assert output.shape == x.shape
        torch.testing.assert_close(output, torch.cat([model(p) for p in x.split(1)]), rtol=0, atol=1e-6)
        assert torch.equal(output, model(pad_to_multiple(x, 8))[..., :height, :width])
        assert torch.equal(output, model(x, model.analyse(x)))


def test_backward_and_bf16() -> None:
    model, x = tiny_restormer(), torch.rand(2, 3, 16, 24)
    exact = model(x)
    exact.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    error, residual = (rough - exact).square().mean().sqrt(), (exact - x).square().mean().sqrt()
    assert 0 < error < 0.03 * residual


def test_options() -> None:
    assert tiny_restormer(bias=True).output.bias is not None
    assert tiny_restormer().options["dim"] == 8
    with pytest.raises(UnknownNameError, match="LayerNorm_type"):
        tiny_restormer(Layernorm_type="BiasFree")
    with pytest.raises(UnknownNameError, match="did you mean 'BiasFree'"):
        tiny_restormer(LayerNorm_type="BiasFre")
    for wrong in ({"inp_channels": 1}, {"dual_pixel_task": True}, {"heads": (1, 2)}, {"num_blocks": (1,)}):
        with pytest.raises(InvalidValueError):
            tiny_restormer(**wrong)
