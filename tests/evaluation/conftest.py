"""Small folders of pictures, cut from one photograph."""

from pathlib import Path

import pytest
import torch

from moir.picture import from_tensor, write


@pytest.fixture
def clean_folder(tmp_path, photograph) -> Path:
    """Three clean pictures; their sides are no multiples of 16."""
    folder = tmp_path / "clean"
    for name, (top, left, height, width) in {
        "a": (0, 0, 40, 53), "b": (64, 64, 35, 48), "c": (128, 20, 50, 50),
    }.items():  # fmt: skip
        write(from_tensor(photograph[:, top : top + height, left : left + width]), folder / f"{name}.png")
    return folder


@pytest.fixture
def pair_folders(tmp_path, clean_folder) -> tuple[Path, Path]:
    """Damaged versions of them, of the same names."""
    from moir.picture import read

    folder = tmp_path / "damaged"
    for path in clean_folder.iterdir():
        generator = torch.Generator().manual_seed(ord(path.stem))
        clean = read(path).rgb
        write(
            from_tensor((clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)), folder / path.name
        )
    return folder, clean_folder


class Dimming:
    """A method that darkens, for tests; it counts its calls."""

    def __init__(self, name="dimming", factor=0.9):
        self.name, self.factor, self.calls = name, factor, []

    def restore(self, x, *, setting):
        self.calls.append((None if setting is None else setting.name, tuple(x.shape)))
        return x * self.factor

    def cost(self, size):
        return None


@pytest.fixture
def dimming():
    return Dimming()
