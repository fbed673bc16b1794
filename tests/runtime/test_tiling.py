import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moir.base.errors import InvalidValueError
from moir.runtime.tiling import add_tile, plan, spans


@given(
    length=st.integers(1, 3000),
    multiple=st.sampled_from([1, 4, 8, 16]),
    overlap_units=st.integers(1, 12),
    extra_units=st.integers(1, 40),
)
def test_spans_cover_the_axis_and_their_weights_sum_to_one(length, multiple, overlap_units, extra_units):
    overlap = overlap_units * multiple
    tile = 2 * overlap + extra_units * multiple
    found = spans(length, tile, overlap, multiple)
    total = torch.zeros(length)
    for span in found:
        assert span.start % multiple == 0
        assert span.stop - span.start <= tile
        total[span.start : span.stop] += span.weights()
    assert torch.allclose(total, torch.ones(length), atol=1e-5)
    for one, two in itertools.pairwise(found):
        assert one.stop - two.start >= min(overlap, two.stop - two.start) - multiple
    assert len({s.stop - s.start for s in found[:-1]}) <= 1


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_tiles_of_an_unchanged_picture_give_the_picture(height, width):
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 301 + width))
    canvas = torch.zeros_like(picture)
    for row, column in plan(height, width, 64, 16, 8).tiles():
        add_tile(canvas, picture[..., row.start : row.stop, column.start : column.stop], row, column)
    assert torch.allclose(canvas, picture, atol=1e-5)


def test_the_border_of_a_tile_has_no_weight_inside_the_picture():
    first, second = spans(100, 72, 32, 8)
    assert first.weights()[-1] == 0
    assert second.weights()[0] == 0
    assert first.weights()[0] == 1


@pytest.mark.parametrize(("tile", "overlap", "multiple"), [(32, 16, 8), (60, 16, 8), (64, 12, 8)])
def test_impossible_tiles_are_refused(tile, overlap, multiple):
    with pytest.raises(InvalidValueError, match="tile"):
        spans(1000, tile, overlap, multiple)
