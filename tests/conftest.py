"""What all tests share. Pictures come from scikit-image's bundled photographs."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from skimage import data

import moir
from moir.models import create_model

# Speed is judged in benchmarks; on a busy machine a deadline would fail tests at random.
settings.register_profile("moir", deadline=None)
settings.load_profile("moir")
torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with train/ and test/ pictures, where there is one."""
    root = os.environ.get("MOIR_DATA")
    if not root:
        pytest.skip("MOIR_DATA is not set: no benchmark pictures here")
    return Path(root)


@pytest.fixture(scope="session")
def photograph() -> torch.Tensor:
    """A photograph, (3, 256, 256), float32, [0, 1]."""
    pixels = torch.from_numpy(data.astronaut()[:256, 100:356].copy())
    return pixels.permute(2, 0, 1).float() / 255


@pytest.fixture
def tiny_network():
    """A tiny network with weights that do something."""
    torch.manual_seed(0)
    network = create_model("test_compact")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return network.eval()


@pytest.fixture
def tiny_restorer(tiny_network):
    """A Restorer around it."""
    return moir.Restorer(tiny_network, "test_compact", device="cpu", precision="float32")
