"""Self-ensembles: the mean over orientations, one decision, and nothing turned that must stay upright."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moir.base.names import TYPES
from moir.models import create_model
from moir.restore import Restorer
from moir.runtime import Engine
from moir.runtime.ensemble import MIRRORED, TURNED, orientations, oriented, restore_ensemble, upright


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    return Engine(create_model("test_restormer"), "cpu", "float32")


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 3, 24, 33, generator=torch.Generator().manual_seed(1))


def test_it_is_the_mean_of_what_each_orientation_gives(engine, picture):
    each = [upright(engine.restore(oriented(picture, way)).pictures, way) for way in TURNED]
    assert torch.allclose(restore_ensemble(engine, picture).pictures, torch.stack(each).mean(0), atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(way=st.sampled_from(TURNED))
def test_a_turned_picture_is_restored_to_the_turned_result(engine, picture, way):
    result = restore_ensemble(engine, picture).pictures
    assert torch.allclose(restore_ensemble(engine, oriented(picture, way)).pictures, oriented(result, way), atol=1e-5)


@pytest.mark.parametrize("name", ["test_moce_ir", "test_compact", "test_unirestorer_compact", "test_promptir"])
def test_networks_that_decide(name, picture):
    torch.manual_seed(0)
    alone = Restorer(create_model(name), name, device="cpu", precision="float32")
    both = Restorer(alone.engine.network, name, device="cpu", precision="float32", ensemble=True)
    result, usual = both(picture[0]), alone(picture[0])
    assert result.tensor.shape == usual.tensor.shape
    assert (result.expert, result.tiles) == (usual.expert, usual.tiles)
    assert [f.type for f in result.estimate] == [f.type for f in usual.estimate]
    together = both.batch([picture[0], picture[0].flip(1)])
    assert torch.allclose(together[0].tensor, result.tensor, atol=1e-6)


def test_rain_stays_upright_whether_found_or_said():
    def found(**probabilities):
        p = torch.tensor([[probabilities.get(type_, 0.0) for type_ in TYPES]])
        return {"presence": torch.logit(p, eps=1e-6)}

    assert orientations(found(noise=0.9, jpeg=0.9)) == TURNED
    assert orientations(found(noise=0.9, rain=0.3)) == MIRRORED
    assert orientations(found(rain=0.9), ["noise"]) == TURNED
    assert orientations(found(), ["haze"]) == MIRRORED
    assert orientations({}) == TURNED


def test_the_expert_of_the_picture_as_it_is_restores_all_orientations(picture, monkeypatch):
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact").eval()
    analyse, restore_routed = network.analyse, network.restore_routed
    choices, asked = iter([5, 6, 6, 6, 6, 6, 6, 6]), []

    def deciding(x):
        context = analyse(x)
        expert, nothing = torch.full_like(context["expert"], next(choices)), torch.full_like(context["presence"], -9)
        return {**context, "expert": expert, "presence": nothing}

    def watched(x, context, expert):
        asked.extend(context["expert"].tolist())
        return restore_routed(x, context, expert)

    monkeypatch.setattr(network, "analyse", deciding)
    monkeypatch.setattr(network, "restore_routed", watched)
    restore_ensemble(Engine(network, "cpu", "float32", engine="plain"), picture)
    assert asked == [5] * 8


def test_progress_counts_the_tiles_of_all_orientations(engine, picture):
    told = []
    restore_ensemble(engine, picture, on_tile=lambda done, tiles: told.append((done, tiles)))
    assert told == [(n, 8) for n in range(1, 9)]


def test_an_instruction_reaches_every_orientation(picture):
    said = []
    engine = SimpleNamespace(network=create_model("test_compact").eval())
    real = Engine(engine.network, "cpu", "float32")
    engine.analyse = lambda x, types=None: (said.append(types), real.analyse(x, types))[1]
    engine.restore = real.restore
    restore_ensemble(engine, picture, ["noise"])
    assert said == [["noise"]] * 8
