import pytest
import torch

import moir
from moir import degrade
from moir.base.names import TYPES
from moir.batch.inspecting import damage_map, draw_map
from moir.picture import from_tensor, read, write

KEYS = ["input", "width", "height", "model", "expert", "granularity", "estimate", "uncertainty", "seconds"]


@pytest.fixture
def half_noisy(photograph):
    """A photograph whose right half is noisy."""
    clean = photograph[:, :128, :192]
    params = degrade.parse("noise=50").sample(torch.Generator().manual_seed(0))
    noisy = degrade.apply(clean[None], [params])[0]
    return torch.cat([clean[..., :96], noisy[..., 96:]], -1)


def test_the_account_of_a_file(moir_command, half_noisy, tmp_path):
    write(from_tensor(half_noisy), tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    done = moir_command("inspect", "a.png", "b.png", "--json", "--map", "maps")
    assert done.code == 1
    good, bad = done.records
    assert list(good) == KEYS
    assert len(good["estimate"]) == 7
    assert set(bad) == {"input", "error"}
    shown = read(tmp_path / "maps" / "a_map.png")
    assert (shown.width, shown.height > half_noisy.shape[1]) == (half_noisy.shape[2], True)


def test_people_get_a_sentence(moir_command, half_noisy, tmp_path):
    write(from_tensor(half_noisy), tmp_path / "a.png")
    done = moir_command("inspect", "a.png")
    assert done.code == 0
    assert "noise" in done.err
    assert done.out == ""


def test_a_map_shows_where_it_is(half_noisy):
    restorer = moir.load(device="cpu")
    picture = from_tensor(half_noisy)
    found = damage_map(restorer, picture)
    assert found.presence.shape == (2, 3, 7)
    noise = found.presence[..., TYPES.index("noise")]
    assert noise[:, 2].min() > 0.5
    assert noise[:, 2].mean() > noise[:, 0].mean() + 0.3
    assert draw_map(picture, found).size[0] == 192


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (65, 200)])
def test_any_size_has_a_map(tiny_restorer, size):
    picture = from_tensor(torch.rand(3, *size))
    found = damage_map(tiny_restorer, picture)
    assert found.presence.shape[:2] == (-(-size[0] // 64), -(-size[1] // 64))
    assert draw_map(picture, found).size[0] >= size[1]
