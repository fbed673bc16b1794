import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.evaluation.protocols import BEST_PSNR, PROTOCOLS, positions, protocol
from moir.evaluation.scoring import restore


@pytest.fixture
def pair(photograph):
    target = photograph[:, 60:107, 60:117]
    noise = 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(3))
    return target + noise, target  # some values lie outside [0, 1]


def eight_bit(x):
    return np.floor(np.clip(x.permute(1, 2, 0).double().numpy(), 0, 1) * 255 + 0.5).astype(np.uint8)


def test_moce_ir_and_promptir_are_the_published_calls(pair):
    x, y = (protocol("moce_ir").cut(p) for p in pair)
    assert x.shape == (3, 32, 48)
    assert torch.equal(y, pair[1][:, 7:39, 4:52])  # the centre
    a, b = y.permute(1, 2, 0).numpy(), x.clamp(0, 1).permute(1, 2, 0).numpy()
    moce, prompt = (protocol(name).scores(x, y) for name in ("moce_ir", "promptir"))
    decibels = peak_signal_noise_ratio(a, b, data_range=1)
    assert moce["psnr"] == prompt["psnr"] == pytest.approx(decibels, abs=1e-5)
    weighted = structural_similarity(a, b, channel_axis=2, gaussian_weights=True, data_range=1.0)
    assert moce["ssim"] == pytest.approx(weighted, abs=1e-5)
    assert prompt["ssim"] == pytest.approx(structural_similarity(a, b, channel_axis=2, data_range=1), abs=1e-5)
    assert moce["ssim"] != prompt["ssim"]


def test_restormer_y_is_matlab_on_8_bit_files(pair):
    x, y = pair
    luma = [np.floor(rgb2ycbcr(eight_bit(p) / 255)[..., 0] + 0.5) for p in pair]  # uint8 in MATLAB: rounded
    error = np.mean((luma[0] - luma[1]) ** 2)
    scores = protocol("restormer_y").scores(x, y)
    assert scores["psnr"] == pytest.approx(20 * math.log10(255 / math.sqrt(error)), abs=1e-9)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert scores["ssim"] == pytest.approx(structural_similarity(luma[0], luma[1], **options), abs=1e-9)


def test_adaptir_depends_on_the_task(pair):
    x, y = pair
    adaptir = protocol("adaptir")
    assert adaptir.noise == "float"
    a, b = (eight_bit(p).astype(np.float64) for p in pair)
    rgb = 20 * math.log10(255 / math.sqrt(np.mean((a - b) ** 2)))
    assert adaptir.scores(x, y, types=("noise",))["psnr"] == pytest.approx(rgb, abs=1e-9)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    luma = [p @ weights + 16 for p in (a, b)]  # not rounded
    rain = 20 * math.log10(255 / math.sqrt(np.mean((luma[0] - luma[1]) ** 2)))
    assert adaptir.scores(x, y, types=("rain",))["psnr"] == pytest.approx(rain, abs=1e-9)
    inner = [p[4:-4, 4:-4] for p in luma]
    larger = 20 * math.log10(255 / math.sqrt(np.mean((inner[0] - inner[1]) ** 2)))
    assert adaptir.scores(x, y, scale=4, types=("noise",))["psnr"] == pytest.approx(larger, abs=1e-9)


def test_one_picture_under_every_protocol_gives_five_different_scores(pair):
    x, y = pair
    found = {name: p.scores(p.cut(x), p.cut(y), types=("rain",)) for name, p in PROTOCOLS.items()}
    assert len({round(s["psnr"], 6) for s in found.values()}) == 4  # moce_ir and promptir differ in SSIM alone
    assert len({round(s["ssim"], 6) for s in found.values()}) == 5


@pytest.mark.parametrize("name", PROTOCOLS)
def test_equal_pictures_and_what_cannot_be_scored(name, pair):
    chosen = protocol(name)
    assert chosen.name == name
    assert chosen.source
    assert chosen.to_json()["data_range"] == 1
    target = chosen.cut(pair[1])
    assert chosen.scores(target, target) == {"psnr": BEST_PSNR, "ssim": pytest.approx(1)}
    broken = target.clone()
    broken[0, 3, 4] = math.nan
    with pytest.raises(InvalidValueError, match=r"1 of .* NaN"):
        chosen.scores(broken, target)
    with pytest.raises(TensorShapeError):
        chosen.scores(target[:, 1:], target)


def test_names_crops_and_mistakes(pair):
    with pytest.raises(UnknownNameError, match="moce_ir"):
        protocol("moceir")
    with pytest.raises(InvalidValueError, match="unirestorer"):
        protocol("moce_ir", crop=64)
    chosen = protocol("unirestorer", crop=64, stride=48)
    assert (chosen.to_json()["crop"], chosen.to_json()["stride"]) == (64, 48)
    with pytest.raises(InvalidValueError, match="stride 100"):
        protocol("unirestorer", crop=64, stride=100)
    with pytest.raises(TensorShapeError, match="9x47 is less"):
        protocol("moce_ir").cut(pair[0][..., :9])
    with pytest.raises(AttributeError):
        chosen.crop = 3


@given(st.integers(1, 400), st.integers(16, 120), st.integers(16, 120))
def test_crops_cover_everything_once_or_more(side, crop, stride):
    stride = min(stride, crop)
    starts = positions(side, crop, stride)
    covered = np.zeros(side)
    for start in starts:
        covered[start : start + crop] += 1
        assert start == 0 or start + crop <= side
    assert covered.min() >= 1
    assert starts == sorted(set(starts))


def test_crops_are_restored_one_by_one_and_averaged(photograph, dimming):
    picture = photograph[:, :70, :100]
    chosen = protocol("unirestorer", crop=64, stride=32)
    done = restore(dimming, picture, None, chosen)
    assert torch.allclose(done, picture * 0.9, atol=1e-6)  # a pointwise method does not notice
    assert [shape for _, shape in dimming.calls] == [(3, 64, 64)] * 6
    dimming.calls.clear()
    restore(dimming, picture, None, protocol("moce_ir"))
    assert [shape for _, shape in dimming.calls] == [(3, 70, 100)]


def test_overlaps_are_averaged_evenly():
    class ByBrightness:
        name = "mean"

        def restore(self, x, *, setting):
            return torch.full_like(x, float(x.mean()))

    picture = torch.zeros(3, 32, 96)
    picture[..., 64:] = 1
    done = restore(ByBrightness(), picture, None, protocol("unirestorer", crop=64, stride=32))
    # The crops begin at 0 and 32; their means are 0 and 1/2, and they overlap from 32 to 64.
    assert done[0, 0, [0, 31, 32, 63, 64, 95]].tolist() == pytest.approx([0, 0, 0.25, 0.25, 0.5, 0.5])
