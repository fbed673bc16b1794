import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from moir.base.errors import TensorShapeError
from moir.metrics import psnr


def test_against_scikit_image(photograph):
    noisy = (photograph + 0.1 * torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    batch = psnr(torch.stack([noisy, photograph * 0.9]), torch.stack([photograph, photograph]))
    for value, image in zip(batch.tolist(), (noisy, photograph * 0.9), strict=True):
        expected = peak_signal_noise_ratio(photograph.numpy(), image.numpy(), data_range=1)
        assert value == pytest.approx(expected, abs=1e-5)


def test_equal_pictures_and_wrong_shapes(photograph):
    assert psnr(photograph[None], photograph[None]).item() == math.inf
    with pytest.raises(TensorShapeError):
        psnr(photograph, photograph)
    with pytest.raises(TensorShapeError):
        psnr(photograph[None], photograph[None, :, 1:])
