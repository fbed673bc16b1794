import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the published implementations' numbers."""
    folder = os.environ.get("MOIR_PARITY")
    if not folder:
        pytest.skip("MOIR_PARITY is unset: no numbers of the published implementations here")
    return Path(folder)


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fill() -> Callable[..., None]:
    """Fills a model with the parity files' weights: ``fill(model, gain=0.7)``."""
    return _fill


@torch.no_grad()
def _fill(model: torch.nn.Module, gain: float = 0.7) -> None:
    """Weights as a function of names and shapes alone: the rule of the parity files."""
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        random = np.random.RandomState(zlib.crc32(name.encode()))
        g = random.standard_normal(tuple(value.shape) or (1,)).astype(np.float32).reshape(tuple(value.shape))
        if name.endswith("running_var"):
            weight = 1 + 0.1 * np.abs(g)
        elif name.endswith("running_mean"):
            weight = 0.1 * g
        elif value.dim() <= 1:
            weight = 1 + 0.1 * g if name.endswith("weight") else 0.1 * g
        else:
            weight = gain * g / np.sqrt(np.prod(value.shape[1:]))
        value.copy_(torch.from_numpy(np.asarray(weight, np.float32)))


@pytest.fixture
def published_shapes(parity: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, the extractor's templates written out."""
    listed = json.loads((parity / "unirestorer_keys.json").read_text())
    shapes = {name: tuple(entry["shape"]) for name, entry in listed["keys"].items()}
    for template, shape in listed["daclip_key_templates"].items():
        for layer in range(12) if "{0..11}" in template else [0]:
            shapes[template.replace("{0..11}", str(layer))] = tuple(shape)
    return shapes
