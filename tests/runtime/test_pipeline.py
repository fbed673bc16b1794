"""What keeps a GPU busy, as far as it can be seen without one: the order of things, not their speed."""

import pytest
import torch

from moir.experts.dispatch import dispatch
from moir.models import create_model
from moir.runtime.graphs import GraphRunner
from moir.runtime.pipeline import TilePipeline, host_routes, is_route, tiles_at_once
from moir.runtime.tiling import add_tile, plan

CPU = torch.device("cpu")


@pytest.fixture
def routed():
    torch.manual_seed(3)
    network = create_model("test_moce_ir").eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "routing" in name:  # routes that differ from picture to picture
            parameter.mul_(20)
    return network


def test_routes_on_the_host_give_the_same_picture(routed):
    x = torch.rand(3, 3, 40, 33, generator=torch.Generator().manual_seed(1))
    context = routed.analyse(x)
    there = host_routes(context)
    assert there.keys() == context.keys()
    assert all(torch.equal(there[name], context[name]) for name in context)
    assert torch.equal(routed(x, there), routed(x, context))


@pytest.mark.parametrize("pictures", [1, 2])
def test_with_routes_on_the_host_nothing_waits_for_the_device(routed, pictures):
    x = torch.rand(pictures, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    context = host_routes(routed.analyse(x))
    # Tensors on the meta device have no values: whoever reads one fails.
    far = {name: value if name.endswith(".experts") else value.to("meta") for name, value in context.items()}
    network = routed.to("meta")
    assert network(x.to("meta"), far).shape == x.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        network(x.to("meta"), {name: value.to("meta") for name, value in context.items()})


@pytest.mark.parametrize("name", ["test_unirestorer_compact", "test_unirestorer"])
def test_with_the_expert_on_the_host_a_tree_of_experts_waits_for_nothing(name):
    torch.manual_seed(0)
    network = create_model(name).eval().requires_grad_(False)
    x = torch.rand(1, 3, 40, 40)
    context = host_routes(network.analyse(x))
    far = {n: value if is_route(n) else value.to("meta") for n, value in context.items()}
    network = network.to("meta")
    assert network(x.to("meta"), far).shape == x.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        network(x.to("meta"), {n: value.to("meta") for n, value in context.items()})


def test_a_context_without_routes_stays_as_it_is():
    context = {"condition": torch.rand(2, 4)}
    assert host_routes(context) == context


def test_pictures_that_chose_alike_are_weighted_like_any_others():
    generator = torch.Generator().manual_seed(0)
    experts = torch.nn.ModuleList(torch.nn.Conv2d(2, 2, 1) for _ in range(3))
    x = torch.randn(2, 2, 4, 4, generator=generator)
    gates = torch.rand(2, 2, generator=generator)
    for rows in ([[2, 0], [2, 0]], [[2, 0], [0, 1]]):
        expected = torch.stack(
            [sum(g * experts[e](x[b : b + 1])[0] for g, e in zip(gates[b], row, strict=True))
             for b, row in enumerate(rows)]
        )  # fmt: skip
        torch.testing.assert_close(dispatch(experts, (x,), torch.tensor(rows), gates), expected)


def straightforward(network, pictures, context, division):
    canvas = torch.zeros(pictures.shape)
    for row, column in division.tiles():
        part = pictures[..., row.start : row.stop, column.start : column.stop]
        add_tile(canvas, network(part, context), row, column)
    return canvas.clamp(0, 1)


@pytest.mark.parametrize(("batch", "at_once"), [(1, 1), (1, 4), (2, 4)])
def test_tiles_in_a_pipeline_make_the_same_picture(tiny_network, photograph, batch, at_once):
    pictures = torch.stack([photograph[:, :150, :117], photograph[:, 50:200, 100:217]])[:batch]
    context = tiny_network.analyse(pictures)
    division = plan(150, 117, 64, 16, 8)
    sizes, steps = [], []

    def forward(x, context, dtype):
        sizes.append(len(x))
        return tiny_network(x, context)

    pipeline = TilePipeline(forward, CPU, torch.float32, at_once=at_once)
    restored = pipeline.restore(pictures, context, division, lambda done, count: steps.append((done, count)))
    with torch.inference_mode():
        expected = straightforward(tiny_network, pictures, context, division)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)
    assert steps == [(number, division.count) for number in range(1, division.count + 1)]
    assert sum(sizes) == division.count * batch
    assert max(sizes) == (at_once if batch == 1 else batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tile_that_is_not_finite_is_computed_again_in_float32(photograph, dtype, caplog):
    seen = []

    def forward(x, context, precision):
        seen.append(precision)
        broken = precision is not torch.float32 and len(seen) == 2
        return (x * float("inf") if broken else x).to(precision)

    picture = photograph[None, :, :100, :64]
    pipeline = TilePipeline(forward, CPU, dtype)
    restored = pipeline.restore(picture, {}, plan(100, 64, 64, 16, 8))
    assert seen.count(torch.float32) == 1
    assert "not finite" in caplog.text
    torch.testing.assert_close(restored, picture, atol=4e-3, rtol=0)


class Recorder:
    """Stands for a device: notes what is recorded, and what is replayed."""

    def __init__(self):
        self.recorded, self.replayed = [], []

    def __call__(self, forward, x, context, dtype):
        number = len(self.recorded)
        self.recorded.append(x.shape)

        def replay(x, context):
            self.replayed.append(number)
            return forward(x, context, dtype)

        return replay


def test_a_shape_is_recorded_when_it_has_come_often_enough_and_the_oldest_makes_way():
    recorder = Recorder()
    runner = GraphRunner(lambda x, context, dtype: 2 * x, limit=2, after=3, record=recorder)

    def run(side, times):
        for _ in range(times):
            x = torch.rand(1, 3, side, side)
            assert torch.equal(runner(x, {}, torch.float32), 2 * x)

    run(8, 2)
    assert recorder.recorded == []
    run(8, 2)
    assert recorder.recorded == [(1, 3, 8, 8)]
    assert recorder.replayed == [0, 0]
    run(16, 3)
    run(8, 1)
    run(24, 3)  # 16 was not used for longest
    run(8, 1)
    assert recorder.replayed[-1] == 0
    run(16, 2)
    assert recorder.replayed[-1] == 0
    run(16, 1)
    assert recorder.recorded[-1] == (1, 3, 16, 16)
    assert len(recorder.recorded) == 4


def test_other_routes_are_another_recording():
    recorder = Recorder()
    runner = GraphRunner(lambda x, context, dtype: x, after=1, record=recorder)
    x = torch.rand(1, 3, 8, 8)
    for route, strength in ((0, 0.1), (1, 0.1), (0, 0.7)):
        runner(x, {"a.experts": torch.tensor([[route]]), "a.gates": torch.tensor([[strength]])}, torch.float32)
    runner(x, {"a.experts": torch.tensor([[0]]), "a.gates": torch.tensor([[0.1]])}, torch.float16)
    assert recorder.replayed == [0, 1, 0, 2]


def test_as_many_tiles_as_fit():
    assert tiles_at_once(None, 6000, 256**2) == 1
    assert tiles_at_once(10**6, 6000, 256**2) == 1
    assert tiles_at_once(4 * 10**9, 6000, 256**2) == 6
    assert tiles_at_once(10**12, 6000, 256**2) == 16
