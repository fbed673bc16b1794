"""Tiles know where in their picture they lie, if their network must know."""

import pytest
import torch

from moir.metrics import psnr
from moir.models import create_model
from moir.networks.base import PLACE
from moir.runtime import Engine
from moir.runtime.graphs import GraphRunner
from moir.runtime.pipeline import TilePipeline
from moir.runtime.tiling import plan

CPU = torch.device("cpu")
HEIGHT, WIDTH = 150, 117


@pytest.fixture
def located():
    """Pictures whose pixels say where they are, (2, 3, H, W): row, column, which picture."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([torch.stack([rows, columns, torch.full_like(rows, which)]) for which in (0, 1)]) / 256


def promptir():
    """A tiny PromptIR, always the same."""
    torch.manual_seed(0)
    return create_model("test_promptir").eval()


@pytest.mark.parametrize(("batch", "at_once"), [(1, 1), (1, 4), (2, 4)])
def test_every_tile_is_told_its_own_place(located, batch, at_once):
    seen = []

    def forward(x, context, dtype):
        seen.append(context[PLACE])
        corner = (256 * x[:, :2, 0, 0]).round().long()
        assert torch.equal(context[PLACE][:, :2], corner)
        assert context[PLACE][:, 2:].tolist() == [[HEIGHT, WIDTH]] * len(x)
        assert torch.equal(context["own"], x[:, 2, :1, 0])  # what was known before stays
        return x

    pictures = located[:batch]
    context = {"own": pictures[:, 2, :1, 0]}
    division = plan(HEIGHT, WIDTH, 64, 16, 8)
    pipeline = TilePipeline(forward, CPU, torch.float32, at_once=at_once, uses_place=True)
    torch.testing.assert_close(pipeline.restore(pictures, context, division), pictures, atol=1e-6, rtol=0)
    assert len(torch.cat(seen)) == division.count * batch > batch
    assert max(map(len, seen)) == (at_once if batch == 1 else batch)
    assert len({tuple(place) for place in torch.cat(seen).tolist()}) == division.count
    assert PLACE not in context


def test_a_whole_picture_is_told_nothing(located):
    pipeline = TilePipeline(lambda x, context, dtype: x * (PLACE not in context), CPU, torch.float32, uses_place=True)
    assert torch.equal(pipeline.restore(located, {}, plan(HEIGHT, WIDTH, None, 16, 8)), located)


@pytest.mark.parametrize("name", ["test_restormer", "test_promptir"])
def test_only_networks_that_declare_it_are_told(name, monkeypatch):
    network = create_model(name).eval()
    told = []
    forward = type(network).forward

    def listening(self, x, context=None):
        told.append(context is not None and PLACE in context)
        return forward(self, x, context)

    monkeypatch.setattr(type(network), "forward", listening)
    engine = Engine(network, "cpu", "float32", tile=72, engine="plain")
    assert engine.restore(torch.rand(1, 3, 80, 64)).tiles == len(told) == 2
    assert told == [name == "test_promptir"] * 2


def test_tiles_of_promptir_come_nearer_to_the_whole_picture():
    x = torch.rand(2, 3, 141, 150, generator=torch.Generator().manual_seed(0))
    exact = Engine(promptir(), "cpu", "float32", tile=None)
    context = exact.analyse(x)
    whole = exact.restore(x, context)
    told = Engine(promptir(), "cpu", "float32", tile=104).restore(x, context)
    untold = promptir()
    untold.uses_place = False
    apart = Engine(untold, "cpu", "float32", tile=104).restore(x, context)
    assert told.tiles == apart.tiles == 4
    assert PLACE not in told.context
    assert psnr(told.pictures, whole.pictures).min() > psnr(apart.pictures, whole.pictures).max() + 10


def test_tiles_of_a_batch_are_those_of_its_pictures():
    engine = Engine(promptir(), "cpu", "float32", tile=104)
    x = torch.rand(2, 3, 141, 100, generator=torch.Generator().manual_seed(0))
    together = engine.restore(x)
    assert together.tiles == 2
    alone = torch.cat([engine.restore(picture).pictures for picture in x.split(1)])
    torch.testing.assert_close(together.pictures, alone, atol=1e-6, rtol=0)


def test_tiles_of_all_places_are_one_recording(located):
    recorded = []

    def record(forward, x, context, dtype):
        recorded.append(x.shape)
        return lambda x, context: forward(x, context, dtype)

    runner = GraphRunner(lambda x, context, dtype: context[PLACE][:, :2, None, None] + x[:, :2], after=1, record=record)
    places = torch.tensor([[0, 0, HEIGHT, WIDTH], [8, 16, HEIGHT, WIDTH]])
    for place in places.split(1):
        tile = torch.zeros(1, 3, 8, 8)
        assert runner(tile, {PLACE: place}, torch.float32)[0, :, 0, 0].tolist() == place[0, :2].tolist()
    assert len(recorded) == 1
