from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from moir.base.errors import InvalidValueError
from moir.layers.local_pool import local_mean
from moir.networks.nafnet import nafnet, nafnet_local
from moir.networks.nafnet import test_nafnet as tiny_nafnet
from moir.networks.nafnet import test_nafnet_local as tiny_nafnet_local


@torch.no_grad()
def test_published_numbers(parity: Path, fill: Callable[..., None]) -> None:
    model = nafnet_local().eval()
    fill(model)
    with np.load(parity / "nafnetlocal_64.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    torch.testing.assert_close(model(x), y, rtol=0, atol=1e-5)
    model.train_size = (400, 400)  # windows of 600 pixels: here, the whole picture
    assert (model(x) - y).abs().max() > 1e-4  # so the file tells local from global pooling


def test_published_names_and_shapes(expert_shapes: Callable[[str], dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        local, blocks = nafnet_local(), {"middle_blk_num": 1, "enc_blk_nums": (1, 1, 1, 28)}
        globally = nafnet(**blocks, dec_blk_nums=(1, 1, 1, 1))
    wanted = expert_shapes("l1_experts.6.")
    for model in (local, globally):
        assert {name: list(value.shape) for name, value in model.state_dict().items()} == wanted


def test_published_counts(gmacs: Callable[[torch.nn.Module], float]) -> None:
    with torch.device("meta"):
        model = nafnet_local()
    assert sum(p.numel() for p in model.parameters()) == 67_888_835
    assert gmacs(model) == pytest.approx(63.055, abs=0.002)


def test_windows_are_those_of_the_published_conversion() -> None:
    with torch.device("meta"):
        model = nafnet_local(width=8)
    assert [model._window(level) for level in range(5)] == [(n, n) for n in (384, 192, 96, 48, 24)]


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 99),
)
def test_local_mean_is_average_pooling_with_its_border_repeated(
    size: tuple[int, int], kernel: tuple[int, int], seed: int
) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    fitting = (min(kernel[0], size[0]), min(kernel[1], size[1]))
    means = F.avg_pool2d(x, fitting, stride=1)
    down, right = size[0] - means.shape[2], size[1] - means.shape[3]
    if kernel[0] < size[0] or kernel[1] < size[1]:
        border = (right // 2, right - right // 2, down // 2, down - down // 2)
        means = F.pad(means, border, mode="replicate")
    torch.testing.assert_close(local_mean(x, kernel), means, rtol=1e-5, atol=1e-6)


def test_local_mean_of_a_large_picture_keeps_its_digits() -> None:
    x = torch.full((1, 1, 700, 900), 1 / 3) + 1e-3 * torch.rand(1, 1, 700, 900)
    exact = local_mean(x.double(), (384, 384))
    assert (local_mean(x, (384, 384)) - exact).abs().max() < 1e-6
    assert local_mean(x.bfloat16(), (384, 384)).dtype == torch.float32


@torch.no_grad()
def test_any_size_is_padded_with_zeros(fill: Callable[..., None]) -> None:
    for make in (tiny_nafnet, tiny_nafnet_local):
        model = make().eval()
        fill(model)
        for height, width in [(1, 1), (2, 9), (33, 40)]:
            x = torch.rand(2, 3, height, width)
            output = model(x)
            padded = F.pad(x, (0, -width % 4, 0, -height % 4))
            assert torch.equal(output, model(padded)[..., :height, :width])
            torch.testing.assert_close(output, torch.cat([model(p) for p in x.split(1)]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_tiles_share_the_means_of_the_picture(fill: Callable[..., None], uneven: torch.Tensor) -> None:
    model = tiny_nafnet().eval()
    fill(model)
    context = model.analyse(uneven)
    assert context["encoders.1.0"].shape == (1, 16, 1, 1)
    whole, tile = model(uneven), uneven[..., :192]
    torch.testing.assert_close(model(tile, context)[..., :128], whole[..., :128], rtol=0, atol=1e-5)
    assert (model(tile)[..., :128] - whole[..., :128]).abs().max() > 1e-3


@torch.no_grad()
def test_local_pooling_needs_no_context(fill: Callable[..., None], uneven: torch.Tensor) -> None:
    model = tiny_nafnet_local().eval()
    fill(model)
    assert model.analyse(uneven) == {}
    assert torch.equal(model(uneven, {}), model(uneven))
    # Far from the tile's border it sees the same windows.
    torch.testing.assert_close(model(uneven[..., :192])[..., :96], model(uneven)[..., :96], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"img_channel": 1}, {"enc_blk_nums": (1,)}, {"dec_blk_nums": (1, 1, 1)}, {"train_size": (1, 3, 0, 8)},
     {"fast_imp": True}],
)  # fmt: skip
def test_wrong_options(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        tiny_nafnet_local(**wrong)
