from collections.abc import Callable

import pytest
import torch
from skimage import data

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photo() -> Callable[..., torch.Tensor]:
    """A function that cuts a part out of a photograph, (1, 3, H, W)."""
    loaded = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea")}

    def cut(name: str = "astronaut", top: int = 0, left: int = 150, height: int = 72, width: int = 88) -> torch.Tensor:
        pixels = loaded[name][top : top + height, left : left + width]
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255

    return cut
