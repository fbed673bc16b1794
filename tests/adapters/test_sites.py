"""Where adapters go is found by the types of blocks, without importing networks that are not in use."""

import importlib
import json
import subprocess
import sys

import pytest
from torch import nn

from moir.adapters import attach, parameter_count, sites
from moir.adapters.sites import NORMS, RULES, UNTOUCHED, Rule, block_sites, layer_sites, norm_layout
from moir.models import create_model

SCRIPT = """
import json, sys
from moir.models import create_model
network = create_model("test_restormer")
before = {name for name in sys.modules if name.startswith("moir.networks.")}
from moir.adapters import METHODS, attach
for method in METHODS:
    attach(network, method)
print(json.dumps(sorted({name for name in sys.modules if name.startswith("moir.networks.")} - before)))
"""


def test_attaching_imports_no_other_network():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("kind", [kind for table in (RULES, UNTOUCHED, NORMS) for kind in table], ids=str)
def test_every_named_type_is_there(kind):
    if isinstance(kind, str):
        module, name = kind.split(":")
        kind = getattr(importlib.import_module(module), name)
    assert issubclass(kind, nn.Module)


class Block(nn.Module):
    """Somebody's own: two halves."""

    def __init__(self):
        super().__init__()
        self.mix, self.norm, self.widen, self.narrow = (
            nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm(8), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1),
        )  # fmt: skip

    def forward(self, x):
        x = x + self.mix(x)
        return x + self.narrow(self.widen(self.norm(x.movedim(1, -1)).movedim(-1, 1)))


class Narrower(Block):
    """Subclasses count."""


class Network(nn.Module):
    """Made of them."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Narrower())

    def forward(self, x):
        return self.blocks(x)


@pytest.mark.parametrize("kind", [Block, f"{__name__}:Block"], ids=["class", "name"])
def test_a_rule_for_a_block_of_ones_own(kind, monkeypatch):
    assert [site.path for site in block_sites(Network())] == ["blocks.0.mix", "blocks.1.mix"]
    monkeypatch.setitem(RULES, kind, Rule("widen", "narrow", "mix"))
    network = Network()
    found = block_sites(network)
    assert [(site.path, site.channels, site.layout) for site in found] == [
        ("blocks.0", 8, "nchw"),
        ("blocks.1", 8, "nchw"),
    ]
    assert found[1].entry is network.blocks[1].widen
    assert found[1].exit is network.blocks[1].narrow
    assert found[1].attention is network.blocks[1].mix
    attach(network, "adapter", rank=4)
    assert parameter_count(network, "adapter") == 4 * (4 * 8 + 4 + 8 * 4 + 8)


def test_the_nearest_base_counts(monkeypatch):
    monkeypatch.setitem(RULES, Block, Rule("widen", "narrow", "mix"))
    monkeypatch.setitem(RULES, f"{__name__}:Narrower", Rule("mix", "mix", None))
    network = Network()
    assert [site.exit for site in block_sites(network)] == [network.blocks[0].narrow, network.blocks[1].mix]


def test_norms_are_found_by_request_and_untouched_parts_never(monkeypatch):
    monkeypatch.setitem(RULES, Block, Rule("widen", "narrow", "mix"))
    network = Network()
    convolutions = [site.path for site in layer_sites(network, (nn.Conv2d,))]
    assert convolutions == [f"blocks.{n}.{name}" for n in (0, 1) for name in ("mix", "widen", "narrow")]
    both = [site.path for site in layer_sites(network, (nn.Conv2d,), norms=True)]
    assert set(both) - set(convolutions) == {"blocks.0.norm", "blocks.1.norm"}
    assert (norm_layout(network.blocks[0].norm), norm_layout(network.blocks[0].mix)) == ("nhwc", None)
    monkeypatch.setitem(sites.UNTOUCHED, Narrower, "for this test")
    assert [site.path for site in block_sites(network)] == ["blocks.0"]


def test_a_picture_wide_estimator_is_left_alone():
    network = create_model("test_compact")
    paths = [site.path for site in layer_sites(network, (nn.Linear, nn.Conv2d))]
    assert paths
    assert not [path for path in paths if path.startswith("estimator")]
    assert any(name.startswith("estimator") for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
