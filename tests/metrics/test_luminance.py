import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr

from moir.base.errors import TensorShapeError
from moir.metrics import luminance


def test_against_scikit_image(photograph):
    expected = rgb2ycbcr(photograph.double().numpy(), channel_axis=0)[0]  # 16..235
    assert np.abs(luminance(photograph)[0].numpy() * 255 - expected).max() < 1e-5


def test_known_colours_and_batches():
    colours = torch.eye(3).T[:, :, None]  # (3, 3, 1): red, green, blue below each other
    assert (luminance(colours)[0, :, 0] * 255).tolist() == pytest.approx([81.481, 144.553, 40.966])
    assert (luminance(torch.zeros(1, 3, 1, 1)) * 255).item() == pytest.approx(16)
    assert luminance(torch.zeros(2, 3, 4, 5)).shape == (2, 1, 4, 5)
    with pytest.raises(TensorShapeError):
        luminance(torch.zeros(1, 4, 4))
