"""Alpha is never touched, and colours under full transparency neither leak nor get lost."""

import logging

import numpy as np
import pytest
import torch

from moir.base.errors import TensorShapeError
from moir.picture import WRITABLE_SUFFIXES, decode, encode, from_array, prepare_colour


@pytest.fixture
def cutout(photo):
    """A disc of a photograph; black under the transparency, a soft edge in between."""
    y, x = np.mgrid[:48, :64]
    alpha = np.clip(20 - np.hypot(y - 24, x - 32), 0, 1) * 255
    colours = np.where(alpha[..., None] > 0, np.maximum(photo, 60), 0)
    return from_array(np.dstack([colours, alpha]).astype(np.uint8))


def test_hidden_pixels_take_the_colour_of_their_neighbours(cutout):
    filled = prepare_colour(cutout)
    hidden = cutout.alpha == 0
    assert torch.equal(filled[:, ~hidden], cutout.rgb[:, ~hidden])
    assert float(filled[:, hidden].min()) >= 60 / 255 - 1e-6  # between visible colours: none stays black
    assert float(filled.max()) <= 1
    # Right beside the edge the fill is near the edge's colour, not the picture's mean.
    plain = from_array(
        np.dstack([np.tile(np.linspace(0, 255, 64), (48, 1))] * 3 + [np.full((48, 64), 255)]).astype(np.uint8)
    )
    hole = plain.alpha.clone()
    hole[20:28, 8:12] = 0
    hole[20:28, 52:56] = 0
    holed = from_array(np.dstack([plain.to_numpy()[..., :3], (hole * 255).numpy().astype(np.uint8)]))
    difference = (prepare_colour(holed) - plain.rgb).abs()
    assert float(difference.max()) < 0.06


def test_blurring_a_prepared_picture_draws_nothing_dark_in(cutout):
    white = from_array(
        np.dstack([np.where(cutout.to_numpy()[..., 3:] > 0, 255, 0).repeat(3, 2), cutout.to_numpy()[..., 3]]).astype(
            np.uint8
        )
    )
    visible = white.alpha > 0

    def blurred(rgb):
        return torch.nn.functional.avg_pool2d(rgb[None], 5, 1, 2, count_include_pad=False)[0]

    assert float(blurred(white.rgb)[:, visible].min()) < 0.9
    assert float(blurred(prepare_colour(white))[:, visible].min()) == pytest.approx(1, abs=1e-6)


def test_with_rgb_keeps_alpha_and_hidden_colours():
    values = np.array([[[9, 8, 7, 0], [1, 2, 3, 1], [4, 5, 6, 255]]], dtype=np.uint8)
    picture = from_array(values)
    restored = picture.with_rgb(torch.ones(3, 1, 3)).to_numpy()
    assert restored.tolist() == [[[9, 8, 7, 0], [255, 255, 255, 1], [255, 255, 255, 255]]]
    for suffix in (".png", ".tif"):
        assert decode(encode(picture, suffix)).to_numpy().tolist() == values.tolist()


@pytest.mark.parametrize("suffix", sorted({".webp", ".avif"} & WRITABLE_SUFFIXES))
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_exact_in_lossy_formats(suffix, channels):
    values = np.random.default_rng(0).integers(0, 256, (40, 40, channels), dtype=np.uint8)
    back = decode(encode(from_array(values), suffix)).to_numpy()
    np.testing.assert_array_equal(back[..., -1], values[..., -1])


@pytest.mark.parametrize("value", [0, 1, 255])
def test_uniform_alpha_needs_no_filling(value, photo):
    picture = from_array(np.dstack([photo, np.full(photo.shape[:2], value, np.uint8)]))
    assert prepare_colour(picture) is picture.rgb
    assert prepare_colour(from_array(photo)).shape == (3, 48, 64)


def test_one_visible_pixel_colours_all():
    values = np.zeros((5, 7, 4), np.uint8)
    values[2, 3] = (50, 100, 150, 255)
    filled = prepare_colour(from_array(values)) * 255
    assert torch.allclose(filled, torch.tensor([50.0, 100, 150])[:, None, None].expand(3, 5, 7), atol=1e-3)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_without_alpha_it_is_laid_over_white(suffix, caplog):
    values = np.zeros((16, 16, 4), np.uint8)
    values[:, 8:, 3] = 255
    with caplog.at_level(logging.WARNING):
        back = decode(encode(from_array(values), suffix))
    assert "laid over white" in caplog.text
    assert back.alpha is None
    assert back.to_numpy()[:, :8].min() >= 250
    assert back.to_numpy()[:, 8:].max() <= 5


def test_grey_stays_grey_by_averaging(photo):
    picture = from_array(photo[..., 0])
    colours = torch.stack([picture.rgb[0], picture.rgb[0], picture.rgb[0].clamp(0, 0.9) + 0.03])
    written = decode(encode(picture.with_rgb(colours), ".png"))
    assert written.grey
    expected = torch.floor(colours.double().mean(0) * 255 + 0.5)
    np.testing.assert_array_equal(written.to_numpy(), expected.numpy())


def test_with_rgb_checks_what_it_gets(cutout):
    for wrong in (torch.zeros(3, 4, 4), torch.zeros(1, 3, 48, 64), torch.zeros(3, 48, 64, dtype=torch.uint8), None):
        with pytest.raises(TensorShapeError, match=r"\(3, 48, 64\)"):
            cutout.with_rgb(wrong)
    half = cutout.with_rgb(torch.ones(3, 48, 64, dtype=torch.bfloat16))
    assert half.rgb.dtype == torch.float32


def test_channels_are_not_views_of_each_other(photo):
    picture = from_array(photo[..., 0])
    picture.rgb[0].zero_()
    assert float(picture.rgb[1].max()) > 0.5
