from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.layers.padding import pad_to_multiple
from moir.networks.retinexformer import retinexformer
from moir.networks.retinexformer import test_retinexformer as tiny_retinexformer


@torch.no_grad()
def test_published_numbers(parity: Path, fill: Callable[..., None]) -> None:
    model = retinexformer().eval()
    fill(model)
    with np.load(parity / "retinexformer_40.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    torch.testing.assert_close(model(x), y, rtol=0, atol=5e-6)


def test_published_names_and_shapes(expert_shapes: Callable[[str], dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        model = retinexformer()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == expert_shapes("l1_experts.5.")


def test_published_counts(gmacs: Callable[[torch.nn.Module], float]) -> None:
    with torch.device("meta"):
        model = retinexformer()
    assert sum(p.numel() for p in model.parameters()) == 1_605_701
    assert gmacs(model) == pytest.approx(12.357 + 3.355 + 0.944, abs=0.002)  # convolutions, linear layers, attention


@torch.no_grad()
def test_any_size_is_padded_by_mirroring() -> None:
    model = tiny_retinexformer(stage=2).eval()
    for height, width in [(1, 1), (2, 9), (33, 40)]:
        x = torch.rand(2, 3, height, width)
        output = model(x)
        assert torch.equal(output, model(pad_to_multiple(x, 4))[..., :height, :width])
        torch.testing.assert_close(output, torch.cat([model(p) for p in x.split(1)]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_tiles_share_the_attention_of_the_picture(fill: Callable[..., None], uneven: torch.Tensor) -> None:
    model = tiny_retinexformer().eval()
    fill(model)
    context = model.analyse(uneven)
    assert context["body.0.denoiser.bottleneck.blocks.0.0"].shape == (1, 4, 8, 8)
    whole, tile = model(uneven), uneven[..., :192]
    together = model(torch.cat([tile, tile.flip(2)]), context)  # one decision serves any number of tiles
    torch.testing.assert_close(together[:1, ..., :128], whole[..., :128], rtol=0, atol=1e-5)
    alone = model(tile)
    assert (alone[..., :128] - whole[..., :128]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "wrong", [{"in_channels": 1}, {"out_channels": 4}, {"n_feat": 6}, {"stage": 0}, {"num_blocks": (1, 2)}]
)
def test_wrong_options(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        tiny_retinexformer(**wrong)
    with pytest.raises(UnknownNameError, match="n_feat"):
        tiny_retinexformer(nfeat=8)
