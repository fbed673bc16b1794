import numpy as np
import pytest

from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.picture import from_array, write


@pytest.fixture
def tiny_model(tiny_network, tmp_path):
    """A weights file with its card."""
    path = tmp_path / "models" / "tiny.safetensors"
    write_tensors(path, tiny_network.state_dict())
    Card("tiny", "test_compact", tiny_network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return path


@pytest.fixture
def many(tmp_path):
    """Make a folder of so many small pictures, all different, and one that is broken."""

    def make(count, side=24):
        folder = tmp_path / "many"
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
            write(from_array(pixels), folder / f"{number:04}.png")
        (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        return folder

    return make
