from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from moir.base.errors import InvalidValueError
from moir.layers.padding import reflect_pad
from moir.layers.window_attention import WindowAttention
from moir.networks.dehazeformer import dehazeformer_l
from moir.networks.dehazeformer import test_dehazeformer_l as tiny_dehazeformer
from moir.networks.dehazeformer_blocks import RescaleLayerNorm
from moir.networks.statistics import Statistics


@torch.no_grad()
def test_published_numbers(parity: Path, fill: Callable[..., None]) -> None:
    model = dehazeformer_l().eval()
    fill(model, 0.3)
    with np.load(parity / "dehazeformer_l.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    torch.testing.assert_close(model(x), y, rtol=0, atol=5e-6)


def test_published_names_and_shapes(expert_shapes: Callable[[str], dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        model = dehazeformer_l()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == expert_shapes("l1_experts.4.")


def test_published_counts(gmacs: Callable[[torch.nn.Module], float]) -> None:
    with torch.device("meta"):
        model = dehazeformer_l()
    assert sum(p.numel() for p in model.parameters()) == 25_451_652
    assert gmacs(model) == pytest.approx(274.707 + 4.745 + 0.168, abs=0.002)  # convolutions, attention, its bias


@torch.no_grad()
def test_window_attention_against_the_formula() -> None:
    attention, (height, width) = WindowAttention(heads=2, window=4), (6, 9)
    qkv = torch.randn(1, 3 * 2 * 3, height, width)
    out = attention(qkv, shift=2)
    padded = F.pad(qkv, (2, 1, 2, 0), mode="reflect")  # 12 x 8
    window = padded[0, :, 4:8, 4:8].reshape(
        3, 2, 3, 16
    )  # q, k, v; heads; channels; pixels: picture rows 2..5, columns 2..5
    for head in range(2):
        q, k, v = window[:, head]
        scores = torch.empty(16, 16)
        for i in range(16):
            for j in range(16):
                d = torch.tensor([i // 4 - j // 4, i % 4 - j % 4]).float()
                bias = attention.meta(d.sign() * (1 + d.abs()).log())[head]
                scores[i, j] = q[:, i] @ k[:, j] / 3**0.5 + bias
        expected = (scores.softmax(1) @ v.T).T.reshape(3, 4, 4)
        torch.testing.assert_close(out[0, 3 * head : 3 * head + 3, 2:6, 2:6], expected, rtol=1e-4, atol=1e-5)


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    border=st.tuples(*(st.integers(0, 13) for _ in range(4))),
)
def test_reflect_pad_mirrors_as_often_as_it_takes(size: tuple[int, int], border: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = border
    x = torch.rand(2, 1, *size)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    assert np.array_equal(reflect_pad(x, left, right, top, bottom).numpy(), expected)


def test_rescale_layer_norm_can_be_undone() -> None:
    norm, x = RescaleLayerNorm(5), torch.rand(2, 5, 6, 7) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1)
    with torch.no_grad():
        norm.meta1.weight.fill_(1)
        norm.meta1.bias.zero_()
        norm.meta2.weight.fill_(1)
    normal, scale, shift = norm(x, Statistics(None, 2))
    torch.testing.assert_close(normal.mean(dim=(1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(normal * scale + shift, x, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_any_size_in_batches() -> None:
    model = tiny_dehazeformer().eval()
    for height, width in [(1, 1), (1, 30), (2, 9), (33, 40)]:
        x = torch.rand(2, 3, height, width)
        x[1] *= 0.3
        output = model(x)
        assert output.shape == x.shape
        torch.testing.assert_close(output, torch.cat([model(p) for p in x.split(1)]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_tiles_share_the_statistics_of_the_picture(fill: Callable[..., None], uneven: torch.Tensor) -> None:
    model = tiny_dehazeformer().eval()
    fill(model)
    context = model.analyse(uneven)
    assert context["layer1.blocks.1.norm1"].shape == (1, 2)
    assert context["fusion2"].shape == (1, 2, 8, 1, 1)
    whole, tile = model(uneven), uneven[..., :288]
    torch.testing.assert_close(model(tile, context)[..., :128], whole[..., :128], rtol=0, atol=1e-5)
    assert (model(tile)[..., :128] - whole[..., :128]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [{"in_chans": 1}, {"out_chans": 3}, {"window_size": 3}, {"embed_dims": (8, 16, 24, 8, 8)}, {"depths": (1, 1)},
     {"conv_type": ("DWConv",) * 5}, {"num_heads": (3, 2, 3, 1, 1)}],
)  # fmt: skip
def test_wrong_options(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError, match="heads" if "num_heads" in wrong else next(iter(wrong))):
        tiny_dehazeformer(**wrong)
