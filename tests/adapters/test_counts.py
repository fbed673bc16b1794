"""On the published backbones: the published numbers of parameters, and AdaptIR's published names."""

import json

import pytest
import torch

from moir.adapters import adapter_parameters, adapter_state, attach, parameter_count
from moir.networks.edt import EDT
from moir.networks.ipt import IPT

# As published; those of moe and fact are one of several designs that fit (667K and 537K are all that is known). conv is
# our own: 36 bottlenecks of 3x3 convolutions to 6 channels.
COUNTS = {
    "adaptir": 697_656,
    "adapter": 691_776,
    "adaptformer": 677_952,
    "conv": 1_506_960,
    "fact": 537_472,
    "lora": 995_328,
    "moe": 667_584,
    "ssf": 373_248,
    "vpt": 884_736,
}


@pytest.fixture
def ipt():
    with torch.device("meta"):
        return IPT()


@pytest.mark.parametrize("method", COUNTS)
def test_counts_on_ipt(ipt, method):
    base = sum(p.numel() for p in ipt.parameters())
    attach(ipt, method)
    assert parameter_count(ipt, method) == COUNTS[method]
    assert sum(p.numel() for p in ipt.parameters()) == base + COUNTS[method]
    assert sum(p.numel() for p in ipt.parameters() if p.requires_grad) == COUNTS[method]
    assert len(adapter_parameters(ipt, method)) == len({id(p) for p in adapter_parameters(ipt, method)})


def test_names_on_ipt(ipt, parity):
    attach(ipt, "adaptir")
    keys = json.loads((parity / "adaptir_ipt_keys.json").read_text())
    expected = {name: tuple(entry["shape"]) for name, entry in keys.items() if "adaptir" in name}
    assert {name: tuple(value.shape) for name, value in adapter_state(ipt, "adaptir").items()} == expected
    own = {name: tuple(value.shape) for name, value in ipt.state_dict().items() if "adaptir" in name}
    assert own == expected
    assert {n for n, p in ipt.named_parameters() if p.requires_grad} == {
        name for name, entry in keys.items() if entry["trainable"]
    }
    assert sum(v.numel() * v.element_size() for v in adapter_state(ipt, "adaptir").values()) < 3e6  # bytes


def test_count_and_names_on_edt(parity):
    with torch.device("meta"):
        edt = attach(EDT(task="sr_4"), "adaptir")
    assert parameter_count(edt, "adaptir") == 173_412
    keys = json.loads((parity / "adaptir_edt_keys.json").read_text())["sr_4"]
    expected = {name: tuple(entry["shape"]) for name, entry in keys.items() if "adaptir" in name}
    assert {n: tuple(v.shape) for n, v in edt.state_dict().items() if "adaptir" in n} == expected
