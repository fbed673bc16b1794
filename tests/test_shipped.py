"""The weights that come with the package: whole, described, small enough, and of use."""

import pytest
import torch
from skimage import data

import moir
from moir import degrade
from moir.checkpoints import Card
from moir.checkpoints.card import sha256_of
from moir.metrics import psnr
from moir.models import DEFAULT, WEIGHTS, shipped

LIMIT = 40 * 2**20


@pytest.fixture(scope="module")
def restorer():
    return moir.load(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def photographs():
    parts = [data.chelsea()[:256, 100:356], data.coffee()[60:316, 180:436], data.astronaut()[:256, 100:356]]
    return torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in parts])


def test_all_weights_together_are_within_the_limit():
    assert 0 < sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= LIMIT
    assert DEFAULT in shipped()


@pytest.mark.parametrize("name", shipped())
def test_cards_say_everything(name):
    card = Card.read(WEIGHTS / f"{name}.json")
    assert card.sha256 == sha256_of(WEIGHTS / f"{name}.safetensors")
    for field in ("description", "source", "licence", "training_data", "compute", "metrics", "weaknesses",
                  "precision", "bytes_per_pixel", "parameters", "overlap", "size_multiple"):  # fmt: skip
        assert getattr(card, field), field
    for entry in card.training_data:
        assert {"name", "pictures", "licence", "from"} <= set(entry)
    for row in card.metrics:
        assert row["n"] > 0
        assert {"benchmark", "protocol", "psnr", "psnr_input", "command"} <= set(row)


@pytest.mark.parametrize("spec", ["noise=25", "rain=heavy", "haze=medium", "snow=heavy", "H-N-R=light"])
def test_the_default_helps(restorer, photographs, spec):
    request = degrade.parse(spec)
    records = [request.sample(torch.Generator().manual_seed(number)) for number in range(len(photographs))]
    damaged = degrade.quantise(degrade.apply(photographs, records))
    restored = torch.stack([result.tensor for result in restorer.batch(list(damaged))])
    assert psnr(restored, photographs).mean() > psnr(damaged, photographs).mean() + 1


def test_the_default_leaves_clean_pictures_alone(restorer, photographs):
    restored = torch.stack([result.tensor for result in restorer.batch(list(photographs))])
    assert psnr(restored, photographs).mean() >= 38


def test_the_default_finds_plain_noise(restorer, photographs):
    noisy = degrade.apply(photographs[:1], [degrade.parse("noise:gaussian=40").sample(torch.Generator())])[0]
    found = restorer(noisy).estimate[0]
    assert found.type == "noise"
    assert found.degree == "heavy"
    assert found.probability > 0.8


def test_told_to_remove_one_damage_it_leaves_the_other(restorer, photographs):
    clean = photographs[0]
    generator = torch.Generator().manual_seed(3)
    params = degrade.parse("noise:gaussian=30, haze=medium").sample(generator)
    both = degrade.apply(clean[None], [params])[0]
    hazy = degrade.apply(clean[None], [[p for p in params if p.type == "haze"]])[0]
    told = restorer(both, task="denoise").tensor
    free = restorer(both).tensor
    assert psnr(told[None], hazy[None]) > psnr(both[None], hazy[None]) + 3
    assert psnr(told[None], hazy[None]) > psnr(free[None], hazy[None])


def test_tiles_agree_with_the_whole_picture(photographs):
    large = torch.nn.functional.interpolate(photographs[:1], scale_factor=2.5, mode="bicubic").clamp(0, 1)
    noisy = degrade.apply(large, [degrade.parse("noise:gaussian=25").sample(torch.Generator())])[0]
    whole = moir.load(device="cpu", precision="float32", tile=None)(noisy)
    tiled = moir.load(device="cpu", precision="float32", tile=256)(noisy)
    assert (whole.tiles, tiled.tiles) == (1, 16)
    assert psnr(whole.tensor[None], tiled.tensor[None]) > 50
