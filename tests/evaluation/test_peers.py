"""Peers: against spandrel where it can be imported, and against a small stand-in of its descriptor everywhere."""

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from moir.base.errors import CheckpointError, MissingExtraError, TensorShapeError
from moir.evaluation.methods import Method
from moir.evaluation.peers import Peer, peer

try:
    import spandrel
except (ImportError, RuntimeError):  # RuntimeError: a torchvision that was built for another torch
    spandrel = None

needs_spandrel = pytest.mark.skipif(
    spandrel is None, reason="spandrel is not installed, or its torchvision does not fit"
)


@dataclass
class StandInRequirements:
    """Stands for spandrel's SizeRequirements."""

    multiple_of: int = 1

    def get_padding(self, width, height):
        return -width % self.multiple_of, -height % self.multiple_of


@dataclass
class StandInDescriptor:
    """Stands for spandrel's ImageModelDescriptor, with a network that makes 1 - x, enlarged by ``scale``."""

    scale: int = 1
    input_channels: int = 3
    output_channels: int = 3
    purpose: str = "Restoration"
    size_requirements: StandInRequirements = field(default_factory=StandInRequirements)
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    architecture = SimpleNamespace(name="StandIn")

    def __post_init__(self):
        channels = self.input_channels
        self.model = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Upsample(scale_factor=self.scale))
        with torch.no_grad():
            self.model[0].weight.copy_(-torch.eye(channels)[:, :, None, None])
            self.model[0].bias.fill_(1.0)

    def __call__(self, x):
        assert x.shape[:2] == (1, self.input_channels)
        return self.model(x)


@dataclass
class AtScale:
    """Stands for a Setting of which only the scale matters."""

    scale: int


def test_a_peer_is_a_method(photograph):
    method = Peer(StandInDescriptor(), "inverse")
    assert isinstance(method, Method)
    assert method.name == "inverse"
    torch.testing.assert_close(method.restore(photograph), 1 - photograph)


def test_grey_networks_run_on_each_channel(photograph):
    method = Peer(StandInDescriptor(input_channels=1, output_channels=1), "grey")
    torch.testing.assert_close(method.restore(photograph), 1 - photograph)
    assert method.cost((16, 16)).macs == 3 * 16 * 16


def test_enlarging_networks_are_shrunk_unless_the_setting_enlarges(photograph):
    method = Peer(StandInDescriptor(scale=4, purpose="SR"), "sr")
    x = photograph[:, :20, :33].contiguous()
    assert "x4" in method.name
    assert method.restore(x, setting=AtScale(4)).shape == (3, 80, 132)
    assert method.restore(x, setting=AtScale(2)).shape == (3, 40, 66)
    shrunk = method.restore(x)
    assert shrunk.shape == x.shape
    assert (shrunk - (1 - x)).abs().mean() < 0.03
    with pytest.raises(TensorShapeError, match="asks for 8"):
        method.restore(x, setting=AtScale(8))


def test_cost_counts_the_padded_picture():
    cost = Peer(StandInDescriptor(size_requirements=StandInRequirements(8)), "padded").cost((15, 17))
    assert cost.macs == 16 * 24 * 9
    assert cost.parameters == 12
    assert cost.size == (15, 17)
    assert cost.precision == "float32"


@pytest.mark.parametrize("wrong", [{"input_channels": 4}, {"input_channels": 1}, {"purpose": "Inpainting"}])
def test_networks_for_something_else_are_refused(wrong):
    with pytest.raises(CheckpointError, match="only networks from colour to colour"):
        Peer(StandInDescriptor(**wrong), "other")


def test_wrong_input():
    with pytest.raises(TensorShapeError, match="float32"):
        Peer(StandInDescriptor(), "inverse").restore(torch.rand(1, 3, 8, 8))


def test_without_spandrel(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingExtraError, match=r"moir\[peers\]"):
        peer(tmp_path / "some.pth")


@needs_spandrel
def test_a_dncnn_file_gives_what_spandrel_gives(tmp_path, photograph):
    # DnCNN's names all begin with "model.", which training programs also put before names.
    torch.manual_seed(0)
    network = nn.Sequential()
    network.model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU())
    for _ in range(15):
        network.model.extend([nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()])
    network.model.append(nn.Conv2d(64, 3, 3, padding=1))
    path = tmp_path / "dncnn.pth"
    torch.save(network.state_dict(), path)
    method = peer(path)
    x = photograph[:, :30, :41].contiguous()
    expected = spandrel.ModelLoader().load_from_file(path)(x[None])[0]
    torch.testing.assert_close(method.restore(x), expected)
    assert method.options()["architecture"] == "DnCNN"
    assert method.files == (path,)


@needs_spandrel
def test_size_requirements_and_scale_of_a_real_architecture(tmp_path):
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    network = SwinIR(
        img_size=64, depths=[2], num_heads=[2], embed_dim=16, window_size=8, upscale=2, upsampler="pixelshuffle"
    )
    path = tmp_path / "swinir_x2.pth"
    torch.save({"params": network.state_dict()}, path)
    method = peer(path)
    x = torch.rand(3, 13, 21)
    assert method.restore(x).shape == x.shape
    assert method.restore(x, setting=AtScale(2)).shape == (3, 26, 42)
    assert method.restore(torch.rand(3, 1, 1)).shape == (3, 1, 1)
    assert method.cost((13, 21)).macs > 0


@needs_spandrel
def test_unknown_architectures_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"something.weight": torch.rand(3, 3)}, path)
    with pytest.raises(CheckpointError, match="no architecture"):
        peer(path)
