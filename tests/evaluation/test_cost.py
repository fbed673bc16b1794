import json
import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import moir
from moir.base.errors import InvalidValueError
from moir.evaluation import cost as module
from moir.evaluation.cost import cost_of_restorer, count_macs, count_parameters, example, measure_cost, peak_memory
from moir.models import create_model


class ByHand(nn.Module):
    """A convolution, a grouped one with a stride, a matrix product and a linear layer, to count by hand."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 5, stride=2, padding=2, groups=4)
        self.last = nn.Linear(16, 7)

    def forward(self, x):
        y = self.second(torch.relu(self.first(x))).flatten(2)  # (1, 16, n)
        return self.last((y @ y.transpose(1, 2)) @ torch.ones(16, 16, device=x.device))


def test_macs_by_hand():
    n = 10 * 6
    expected = (20 * 12) * 8 * 3 * 9 + n * 16 * (8 // 4) * 25 + 16 * 16 * n + 16**3 + 16 * 16 * 7
    assert count_macs(ByHand(), (20, 12)) == expected


def test_macs_and_parameters_of_restormer_are_the_published_ones():
    parity = os.environ.get("MOIR_PARITY")
    if not parity:
        pytest.skip("MOIR_PARITY is not set: no published figures here")
    published = json.loads((Path(parity) / "unirestorer_gmacs.json").read_text())["Restormer_WithBias"]
    with torch.device("meta"):
        network = create_model("restormer")
    assert round(count_macs(network, (256, 256)) / 1e9, 3) == published["GMACs_256"]
    assert count_parameters(network) == published["params"]


def test_macs_grow_with_the_picture(tiny_network):
    small, large = (count_macs(tiny_network, (side, side)) for side in (256, 512))
    assert small < large <= 4 * small


class ByValue(nn.Module):
    """A network that looks at values, which meta tensors have none of."""

    def __init__(self):
        super().__init__()
        self.few, self.many = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.few(x) if x.mean() < 2 else self.many(x)


def test_networks_that_look_at_values_are_run():
    network = ByValue()
    assert count_macs(network, (8, 8)) == 64 * 9
    assert network.training


def test_routed_networks_can_be_counted():
    network = create_model("test_moce_ir")
    assert count_macs(network, (32, 32)) > 32 * 32 * 3 * 9


def test_shared_parameters_count_once():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    assert count_parameters(network) == 16 + 4 + 4


@pytest.mark.parametrize("sampled", [False, True])
def test_peak_is_seen_after_it_is_gone(monkeypatch, tmp_path, sampled):
    if not module.STATUS.exists():
        pytest.skip("no /proc here: memory cannot be told")
    if sampled:  # as on a system where the kernel's record cannot be reset
        monkeypatch.setattr(module, "CLEAR_REFS", tmp_path)
    with peak_memory(torch.device("cpu")) as peak:
        block = torch.ones(50 * 2**18)  # 50 MiB
        if sampled:
            block.add_(1).mul_(2)
            time.sleep(0.05)  # long enough for a look
        del block
    assert 45 * 2**20 < peak.bytes < 90 * 2**20


def test_unknown_memory_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "STATUS", tmp_path / "none")
    assert measure_cost(lambda x: x, (8, 8), repeats=1).peak_mb is None


def test_cost_of_a_restorer(tiny_restorer):
    cost = cost_of_restorer(tiny_restorer, (64, 80))
    assert cost.parameters == sum(p.numel() for p in tiny_restorer.engine.network.parameters())
    assert cost.macs == count_macs(tiny_restorer.engine.network, (64, 80))
    assert cost.size == (64, 80)
    assert cost.seconds > 0
    assert (cost.device, cost.precision) == ("cpu", "float32")


def test_seconds_are_the_median_of_the_runs_after_the_first():
    waits = iter([5.0, 9.0, 1.0, 3.0, 2.0])
    clock = [0.0]

    def restore(x):
        clock[0] += next(waits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "perf_counter", lambda: clock[0])
        assert measure_cost(restore, (4, 4), repeats=3).seconds == 2.0


def test_example_is_a_picture_and_always_the_same():
    x = example((17, 30))
    assert x.shape == (3, 17, 30)
    assert x.min() >= 0
    assert x.max() <= 1
    assert torch.equal(x, example((17, 30)))


def test_impossible_requests():
    with pytest.raises(InvalidValueError, match="at least"):
        measure_cost(lambda x: x, (0, 8))
    with pytest.raises(InvalidValueError, match="at least"):
        measure_cost(lambda x: x, (8, 8), repeats=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_peak_on_cuda():
    device = torch.device("cuda")
    with peak_memory(device) as peak:
        torch.ones(2**20, device=device)
    assert peak.bytes == 2**22


def test_parameters_are_those_of_the_card():
    restorer = moir.load(device="cpu", precision="float32")
    assert count_parameters(restorer.engine.network) == restorer.card.parameters
