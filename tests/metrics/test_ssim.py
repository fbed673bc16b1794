import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from moir.base.errors import TensorShapeError, UnknownNameError
from moir.metrics import ssim


def gaussian_window():
    places = np.arange(11) - 5
    line = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(line, line)
    return window / window.sum()


def by_hand(x, y, window, sample):
    """SSIM of Wang et al., window by window; with ``sample`` covariances are divided by N - 1, not N."""
    side = len(window)
    factor = side**2 / (side**2 - 1) if sample else 1.0
    values = []
    for a, b in zip(x, y, strict=True):
        for top in range(a.shape[0] - side + 1):
            for left in range(a.shape[1] - side + 1):
                p, q = (c[top : top + side, left : left + side] for c in (a, b))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p = factor * ((window * p * p).sum() - mean_p**2)
                var_q = factor * ((window * q * q).sum() - mean_q**2)
                both = factor * ((window * p * q).sum() - mean_p * mean_q)
                c1, c2 = 0.01**2, 0.03**2
                values.append(
                    (2 * mean_p * mean_q + c1) * (2 * both + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
                )
    return np.mean(values)


@pytest.fixture
def pair(photograph):
    target = photograph[:, 100:125, 90:121]
    noise = 0.08 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    return (target + noise).clamp(0, 1), target


@pytest.mark.parametrize(
    ("form", "window", "sample"),
    [
        ("gaussian", gaussian_window(), True),
        ("uniform", np.full((7, 7), 1 / 49), True),
        ("matlab", gaussian_window(), False),
    ],
)
def test_against_its_definition(pair, form, window, sample):
    x, y = pair
    expected = by_hand(x.double().numpy(), y.double().numpy(), window, sample)
    assert ssim(x[None], y[None], form).item() == pytest.approx(expected, abs=1e-9)


def test_the_forms_differ_and_the_published_calls_are_met(pair):
    x, y = pair
    values = {form: ssim(x[None], y[None], form).item() for form in ("gaussian", "uniform", "matlab")}
    assert len({round(v, 4) for v in values.values()}) == 3
    # The calls of the published programs, on (H, W, C) float32.
    a, b = (c.permute(1, 2, 0).numpy() for c in (y, x))
    published = structural_similarity(a, b, channel_axis=2, gaussian_weights=True, data_range=1.0)
    assert values["gaussian"] == pytest.approx(published, abs=1e-5)
    assert values["uniform"] == pytest.approx(structural_similarity(a, b, channel_axis=2, data_range=1), abs=1e-5)


def test_batches_and_mistakes(pair):
    x, y = pair
    both = ssim(torch.stack([x, y]), torch.stack([y, y]))
    assert both[0].item() == ssim(x[None], y[None]).item()
    assert both[1].item() == 1
    with pytest.raises(TensorShapeError, match="at least 11 px, the pictures are 31x10"):
        ssim(x[None, :, :10], y[None, :, :10])
    assert ssim(x[None, :, :10], y[None, :, :10], "uniform").item() < 1
    with pytest.raises(TensorShapeError):
        ssim(x, y)
    with pytest.raises(UnknownNameError, match="gaussian"):
        ssim(x[None], y[None], "gausian")
