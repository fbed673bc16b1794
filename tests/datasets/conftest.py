"""Tiny pictures in the published layouts, made here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)

Make = Callable[..., Path]


def scene(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    """A picture of blocks, which shrinking keeps; the same seed gives the same picture."""
    blocks = np.random.default_rng(seed).integers(20, 236, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def put(tmp_path: Path) -> Make:
    """Write a scene below the root: ``put("a/b.png", seed)``."""

    def write(name: str, seed: int = 0, size: tuple[int, int] = (24, 16), **options: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(seed, *size).save(path, **options)
        return path

    return write


@pytest.fixture
def touch(tmp_path: Path) -> Make:
    """Make empty files, for what looks at names only."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return write
