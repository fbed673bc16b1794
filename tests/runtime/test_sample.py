"""A part of a picture that stands for the whole."""

import pytest
import torch

from moir.runtime.sample import mosaic


def coordinates(height, width):
    """A picture whose pixels say where they are: (1, 3, H, W), row, column, 0."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None].float()


@pytest.mark.parametrize("size", [(320, 320), (321, 999), (200, 4000), (193, 193)])
def test_pieces_are_whole_on_the_grid_and_reach_from_border_to_border(size):
    sample = mosaic(coordinates(*size), 192, 8)
    rows, columns = sample[0, 0, :, 0].long(), sample[0, 1, 0].long()
    assert len(rows) == len(columns) == 192
    assert torch.equal(sample, coordinates(*size)[:, :, rows][..., columns])
    for places, length in ((rows, size[0]), (columns, size[1])):
        pieces = places.view(4, 48)
        assert torch.equal(pieces, pieces[:, :1] + torch.arange(48))
        assert (pieces[:, 0] % 8 == 0).all()
        assert pieces[0, 0] == 0
        assert length - pieces[-1, -1] <= 8
        gaps = pieces[1:, 0] - pieces[:-1, 0]
        assert gaps.max() - gaps.min() <= 8


def test_what_fits_is_kept_whole():
    x = torch.rand(2, 3, 100, 150)
    assert torch.equal(mosaic(x, 192, 8), x)
    assert mosaic(torch.rand(2, 3, 100, 600), 192, 8).shape == (2, 3, 100, 192)


def test_coarse_grids_have_fewer_pieces():
    assert mosaic(torch.rand(1, 3, 700, 90), 384, 128).shape == (1, 3, 384, 90)  # three of 128
    rows = mosaic(coordinates(1000, 90), 200, 128)[0, 0, :, 0].long()
    assert torch.equal(rows, 384 + torch.arange(128))  # one, from the middle
