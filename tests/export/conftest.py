"""What the tests of exported graphs share."""

import pytest
import torch

from moir.checkpoints import Card
from moir.models import create_model


def make(name, **options):
    """A tiny network whose every path matters, and its card."""
    torch.manual_seed(0)
    network = create_model(name, **options).eval()
    with torch.no_grad():  # away from initial zeros
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    return network, Card(name=f"my {name}", model=name, licence="CC0", description="For tests.", sha256="ab" * 32)


@pytest.fixture(autouse=True)
def _needs_the_extra():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'moir[export]'")


@pytest.fixture(scope="session")
def compact(tmp_path_factory):
    """A tiny compact network and the folder it was exported to; tests must not write there."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'moir[export]'")
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'moir[export]'")
    from moir.export import export

    network, card = make("test_compact")
    folder = tmp_path_factory.mktemp("exports") / "compact"
    export(network, folder, card, size=48)
    return network, folder
