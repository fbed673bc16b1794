"""What a file's rounding left goes, and what is seen stays."""

import pytest
import torch

from moir.layers.flatten import RADIUS, flatten


def rounded(amplitude: float) -> torch.Tensor:
    """A checkerboard of 8 px blocks around a grey that varies slowly, (1, 3, 96, 96)."""
    blocks = (torch.arange(96) // 8)[:, None] + torch.arange(96) // 8
    ramp = torch.linspace(0.5, 0.52, 96)
    return (ramp + amplitude / 255 * (blocks % 2 * 2 - 1)).expand(1, 3, -1, -1).contiguous()


def block_edges(x: torch.Tensor) -> float:
    """Mean step across the blocks' vertical edges beyond that of the ramp, in levels of 255."""
    inner = x[..., RADIUS:-RADIUS, RADIUS:-RADIUS]
    steps = (inner[..., 1:] - inner[..., :-1] - 0.02 / 95).abs().mean() * 255 * 8
    return steps.item()


def test_blocks_of_a_level_go_and_those_of_twenty_stay():
    assert block_edges(flatten(rounded(1), 4)) < 0.25 * block_edges(rounded(1))
    assert block_edges(flatten(rounded(20), 4)) > 0.97 * block_edges(rounded(20))


def test_little_is_changed_where_little_is_flattened():
    x = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flatten(x, 1e-3), x, rtol=0, atol=1e-6)
    assert flatten(x.bfloat16(), 2).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 40)])
def test_small_pictures(size):
    x = torch.full((1, 3, *size), 0.4)
    torch.testing.assert_close(flatten(x, 2), x)


def test_a_part_of_a_picture_is_flattened_as_in_the_whole():
    x = torch.rand(1, 3, 64, 120, generator=torch.Generator().manual_seed(1)) * 0.02 + 0.5
    part = flatten(x[..., 20:100], 2)
    torch.testing.assert_close(part[..., 2 * RADIUS : -2 * RADIUS], flatten(x, 2)[..., 36:84])
