"""What the adapters' tests share."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from moir.models import create_model, list_models
from moir.networks.edt import test_edt
from moir.networks.ipt import test_ipt

# Networks with room for adapters; UniRestorer is a tree of whole networks, and says so. The compact tree is left out
# because its router refuses the batch of one that these tests train on.
BACKBONES = {"test_edt": test_edt, "test_ipt": test_ipt}
NETWORKS = sorted({*list_models("test_*", tests=True), *BACKBONES} - {"test_unirestorer", "test_unirestorer_compact"})
OPTIONS = {
    "adapter": {"rank": 16},  # of few ReLUs, all may be dead by chance
    "adaptformer": {"rank": 16},
    "lora": {"rank": 2},
    "fact": {"rank": 3},
    "vpt": {"count": 4},
}


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of published numbers."""
    root = os.environ.get("MOIR_PARITY")
    if not root:
        pytest.skip("MOIR_PARITY is not set: no published numbers here")
    return Path(root)


def make(name, seed=0):
    """A tiny network, away from initial zeros, so that every path matters."""
    torch.manual_seed(seed)
    network = BACKBONES[name]() if name in BACKBONES else create_model(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    for module in network.modules():
        if hasattr(module, "drop"):  # what is left out by chance gets no gradient
            module.drop = 0.0
    return network.eval()


def move(parameters, seed=0):
    """Take adapters away from their start, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def published_weights(module):
    """The weights of the published numbers: a function of every tensor's name and shape."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            random = np.random.RandomState(zlib.crc32(name.encode()))
            draw = torch.from_numpy(random.standard_normal(tuple(tensor.shape)).astype(np.float32))
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.1 * draw.abs())
            elif name.endswith("running_mean") or (tensor.dim() <= 1 and not name.endswith("weight")):
                tensor.copy_(0.1 * draw)
            elif tensor.dim() <= 1:
                tensor.copy_(1 + 0.1 * draw)
            else:
                tensor.copy_(0.7 * draw / np.sqrt(np.prod(tensor.shape[1:])))
    return module
