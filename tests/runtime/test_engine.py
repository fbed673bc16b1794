import pytest
import torch

from moir.base.errors import DeviceError, InvalidValueError, UnknownNameError
from moir.metrics import psnr
from moir.models import create_model
from moir.networks.base import RestorationNetwork
from moir.runtime import Engine, choose_device, choose_precision, memory
from moir.runtime import engine as engine_module


class Recording(RestorationNetwork):
    """Doubles the picture; fails as if memory ran out above a number of pixels; remembers sizes."""

    size_multiple = 8
    overlap = 16

    def __init__(self, limit=10**9):
        super().__init__()
        self.limit = limit
        self.seen = []

    def forward(self, x, context=None):
        self.seen.append(tuple(x.shape[-2:]))
        if x.shape[-1] * x.shape[-2] > self.limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return x * 2


def test_tiles_give_the_whole_picture_when_the_overlap_covers_what_a_pixel_sees(tiny_network, photograph):
    whole = Engine(tiny_network, "cpu", "float32", tile=None)
    x = photograph[None]
    context = whole.analyse(x)
    expected = whole.restore(x, context)
    assert expected.tiles == 1
    tiled = Engine(tiny_network, "cpu", "float32", tile=248).restore(x, context)
    assert tiled.tiles == 4
    assert psnr(tiled.pictures, expected.pictures).item() > 100


def test_results_are_in_range_and_progress_is_told(photograph):
    calls = []
    engine = Engine(Recording(), "cpu", "float32", tile=96)
    output = engine.restore(photograph[None], {}, on_tile=lambda done, total: calls.append((done, total)))
    assert torch.allclose(output.pictures, (photograph[None] * 2).clamp(0, 1), atol=1e-5)
    assert calls == [(n, output.tiles) for n in range(1, output.tiles + 1)]
    assert output.tiles > 4


def test_the_tile_is_halved_when_memory_runs_out():
    network = Recording(limit=200 * 200)
    engine = Engine(network, "cpu", "float32", tile=None)
    x = torch.rand(1, 3, 500, 400) / 2
    output = engine.restore(x, {})
    assert torch.allclose(output.pictures, x * 2, atol=1e-5)
    assert network.seen[0] == (500, 400)
    assert max(h * w for h, w in network.seen[2:]) <= 200 * 200


def test_memory_that_never_suffices_is_reported_as_it_is():
    engine = Engine(Recording(limit=10), "cpu", "float32", tile=None)
    with pytest.raises(RuntimeError, match="allocate"):
        engine.restore(torch.rand(1, 3, 300, 300), {})


def test_other_errors_are_not_retried():
    class Broken(Recording):
        def forward(self, x, context=None):
            self.seen.append(x.shape)
            raise RuntimeError("a defect")

    network = Broken()
    with pytest.raises(RuntimeError, match="a defect"):
        Engine(network, "cpu", "float32").restore(torch.rand(1, 3, 300, 300), {})
    assert len(network.seen) == 1


def test_a_precision_that_does_not_hold_is_given_up(monkeypatch):
    class Coarse(Recording):
        def forward(self, x, context=None):
            return x + 0.1 if torch.is_autocast_enabled("cpu") else x

    monkeypatch.setattr(engine_module, "choose_precision", lambda name, device: torch.bfloat16)
    assert Engine(Coarse(), "cpu").precision == "float32"
    assert Engine(Recording(), "cpu").precision == "bf16"
    assert Engine(Coarse(), "cpu", "bf16").precision == "bf16"  # asked for by name: the user's word counts


def test_values_that_are_not_finite_are_computed_again():
    class Overflowing(Recording):
        def forward(self, x, context=None):
            return x * float("nan") if torch.is_autocast_enabled("cpu") else x

    x = torch.rand(1, 3, 20, 20)
    engine = Engine(Overflowing(), "cpu", "bf16")
    assert torch.equal(engine.restore(x, {}).pictures, x)


def test_devices_and_precisions_that_are_not_there():
    with pytest.raises(DeviceError, match="'cpu' or 'auto'"):
        choose_device("cuda:77")
    with pytest.raises(DeviceError, match="nonsense"):
        choose_device("nonsense")
    with pytest.raises(UnknownNameError, match="bf16"):
        choose_precision("bf61", torch.device("cpu"))
    with pytest.raises(DeviceError, match="GPU"):
        choose_precision("fp16", torch.device("cpu"))


@pytest.mark.parametrize("tile", [0, -8, 30, "big"])
def test_impossible_tiles_are_refused(tile):
    with pytest.raises(InvalidValueError, match="tile"):
        Engine(Recording(), "cpu", tile=tile)


def test_the_side_of_a_tile_follows_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 64 * 2**20)
    small = memory.tile_side(torch.device("cpu"), 1000, 64, 8)
    monkeypatch.setattr(memory, "free_memory", lambda device: 64 * 2**30)
    large = memory.tile_side(torch.device("cpu"), 1000, 64, 8)
    assert small % 8 == large % 8 == 0
    assert small < large
    assert large * large * 1000 <= memory.BUDGET


def test_free_memory_is_known_on_this_system():
    free = memory.free_memory(torch.device("cpu"))
    assert free is None or free > 2**20


def test_a_costly_analysis_sees_a_large_picture_shrunk(photograph):
    class Costly(Recording):
        bounded_analysis = False

        def analyse(self, x):
            self.analysed = tuple(x.shape[-2:])
            return {}

    network = Costly()
    Engine(network, "cpu", "float32", tile=96).analyse(photograph[None, :, :, :128])
    assert network.analysed[0] * network.analysed[1] == pytest.approx(96**2, rel=0.05)
    Engine(network, "cpu", "float32", tile=None).analyse(photograph[None])
    assert network.analysed == (256, 256)
    Engine(network, "cpu", "float32", tile=96).analyse(photograph[None, :, :60, :90])
    assert network.analysed == (60, 90)


def test_a_routed_network_takes_one_route_for_all_tiles(photograph):
    torch.manual_seed(0)
    network = create_model("test_moce_ir").eval()
    engine = Engine(network, "cpu", "float32", tile=384, engine="plain")  # it notes its routes
    x = torch.nn.functional.interpolate(photograph[None], size=(400, 640))
    context = engine.analyse(x)
    output = engine.restore(x, context)
    assert output.tiles > 1
    routes = {name: value for name, value in context.items() if name.endswith(".experts")}
    assert routes
    for name, value in network.routes.items():  # of the last tile
        assert torch.equal(value, routes[f"{name}.experts"])
