"""Experts made of others: one after the other, and the mean of several."""

from pathlib import Path

import pytest
import torch

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.checkpoints import Card
from moir.export.run import load_exported
from moir.export.writing import export
from moir.layers.flatten import flatten
from moir.models import create_model
from moir.networks.base import PLACE, select
from moir.runtime import Engine
from moir.runtime.fast import accelerate
from moir.runtime.pipeline import host_routes, is_route
from moir.training.tree.outcomes import centre, place_of_centre, prints
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.composed_expert import CERTAINTY, ComposedExpert

GRID = {"width": 4, "blocks": 1, "trunk": 1, "grid": 4, "bins": 3, "embedding": 8}
COMPOSED, ALONE = 7, 3
"""Experts of the tiny tree: rain-haze (degree), and the group above it."""


def made(**changes) -> CompactUniRestorer:
    torch.manual_seed(0)
    haze = {"grid": ["haze"]}
    both = [[{"expert": 2, "told": ["rain"]}], [{"expert": 0, "told": ["haze"]}, {"parts": [[haze]]}]]
    forms = {ALONE: {"parts": [[haze]]}, COMPOSED: {"parts": both}}
    network = create_model("test_unirestorer_compact", **{"scene": GRID, "forms": forms} | changes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    assert isinstance(network, CompactUniRestorer)
    return network.eval()


def forced(network: CompactUniRestorer, x: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
    return {**network.analyse(x), "expert": torch.full((len(x),), number)}


def test_the_second_step_is_the_mean_of_its_parts_on_what_the_first_made():
    network, x = made(), torch.rand(2, 3, 40, 56)
    context = network.analyse(x)
    fine = network.expert(2)(x, network.base.instruct(context, ["rain"]))
    other = network.base(fine, network.base.instruct(context, ["haze"]))
    grid = network.scene
    scene = grid.instruct(grid.analyse(x), ["haze"])
    wanted = (other + grid(fine, scene)) / 2
    torch.testing.assert_close(network.restore_with(COMPOSED, x, context), wanted)
    torch.testing.assert_close(network.restore_with(ALONE, x, context), grid(x, scene))
    assert not torch.allclose(grid(x, scene), grid(x, grid.instruct(scene, ["lowlight"])))


def test_parts_count_by_their_weights():
    haze = {"grid": ["haze"], "weight": 3}
    network = made(forms={COMPOSED: {"parts": [[{"expert": 0, "told": ["haze"]}, haze]]}})
    x = torch.rand(1, 3, 24, 24)
    context = network.analyse(x)
    other = network.base(x, network.base.instruct(context, ["haze"]))
    grid = network.scene(x, network.scene.instruct(network.scene.analyse(x), ["haze"]))
    torch.testing.assert_close(network.restore_with(COMPOSED, x, context), (other + 3 * grid) / 4)
    assert network.words_of(COMPOSED) == "experts 0 + 3 x grid"
    for weight in (0, -1, float("nan"), "two", True):
        with pytest.raises(InvalidValueError, match="weight"):
            made(forms={COMPOSED: {"parts": [[{**haze, "weight": weight}]]}})


def test_a_part_may_flatten_what_it_is_given():
    flat = {"grid": ["haze"], "flatten": 3}
    network, x = made(forms={COMPOSED: {"parts": [[{"expert": 0, "told": ["rain"]}, flat]]}}), torch.rand(1, 3, 40, 56)
    x = 0.5 + 0.03 * x
    context = network.analyse(x)
    scene = network.scene.instruct(network.scene.analyse(x), ["haze"])
    other = network.base(x, network.base.instruct(context, ["rain"]))
    wanted = (other + network.scene(flatten(x, 3), scene)) / 2
    torch.testing.assert_close(network.restore_with(COMPOSED, x, context), wanted)
    assert not torch.allclose(wanted, (other + network.scene(x, scene)) / 2, atol=1e-4)
    for part in ({**flat, "flatten": -1}, {**flat, "flatten": "2"}, {"parts": [[flat]], "flatten": 2}):
        with pytest.raises(InvalidValueError, match="flatten"):
            made(forms={COMPOSED: {"parts": [[part]]}})


def test_an_expert_can_be_a_part_of_itself():
    alone = made(forms={})
    network = made(forms={COMPOSED: {"parts": [[{"own": ["rain"]}, {"parts": [[{"own": []}], [{"grid": ["haze"]}]]}]]}})
    network.load_state_dict(alone.state_dict())  # the same parameters, whether they are a part or all
    assert network.words_of(COMPOSED) == "experts own + (own, then grid)"
    x = torch.rand(2, 3, 40, 56)
    context = network.analyse(x)
    own = alone.expert(COMPOSED)
    first = own(x, alone.base.instruct(alone.steering(context, 2), ["rain"]))
    then = own(x, {**alone.steering(context, 2), "remove": context["found"]})
    grid = network.scene(then, network.scene.instruct(network.scene.analyse(x), ["haze"]))
    torch.testing.assert_close(network.restore_with(COMPOSED, x, context), (first + grid) / 2)
    twin = accelerate(network)
    torch.testing.assert_close(twin(x, forced(network, x, COMPOSED)), network(x, forced(network, x, COMPOSED)))


def test_a_picture_is_changed_as_far_as_its_damage_is_probable():
    dehaze = {"parts": [[{"grid": ["haze"]}]], "certainty": {"haze": [0.2, 0.6]}}
    derain = {"expert": 2, "told": ["rain"]}
    network = made(forms={ALONE: dehaze, COMPOSED: {"parts": [[derain], [dehaze]]}})
    plain, x = made(), torch.rand(3, 3, 24, 24)
    context = dict(network.analyse(x))
    assert torch.equal(context[CERTAINTY], torch.sigmoid(context["presence"]))
    probabilities = torch.full((3, 7), 0.9)
    probabilities[:, 2] = torch.tensor([0.1, 0.3, 0.6])  # haze
    context[CERTAINTY] = probabilities
    whole = plain.restore_with(ALONE, x, context)
    wanted = torch.stack([x[0], x[1] + 0.25 * (whole[1] - x[1]), whole[2]])
    torch.testing.assert_close(network.restore_with(ALONE, x, context), wanted)
    # Inside steps it is what the step was given that stays.
    fine = network.expert(2)(x, network.base.instruct(context, ["rain"]))
    torch.testing.assert_close(network.restore_with(COMPOSED, x, context)[0], fine[0])
    told = network.instruct(context, ["haze"])
    assert told[CERTAINTY].tolist() == [[0, 0, 1, 0, 0, 0, 0]] * 3


def test_a_sure_part_removes_what_is_certain_and_rests_where_nothing_is():
    sure = {"parts": [[{"expert": 0, "told": ["rain", "snow"], "sure": 0.5}], [{"grid": ["haze"], "sure": 0.5}]]}
    network, x = made(forms={COMPOSED: sure}), torch.rand(4, 3, 24, 24)
    certainty = torch.full((4, 7), 0.4)
    certainty[1, 1] = 0.5  # rain
    certainty[2, [1, 3]] = 0.9  # rain and snow
    certainty[3, 2] = 0.9  # haze
    context = {**network.analyse(x), CERTAINTY: certainty}
    restored = network.restore_with(COMPOSED, x, context)
    scene = network.scene.instruct(network.scene.analyse(x), ["haze"])
    wanted = [
        x[:1],
        network.base(x, network.base.instruct(context, ["rain"]))[1:2],
        network.base(x, network.base.instruct(context, ["rain", "snow"]))[2:3],
        network.scene(x, scene)[3:],
    ]
    torch.testing.assert_close(restored, torch.cat(wanted))
    calm = network.restore_with(COMPOSED, x[:1], select(context, [0]))
    assert torch.equal(calm, x[:1])


STEPS = [[{"expert": 2, "told": ["noise"], "sure": 0.5}], [{"expert": 0, "told": ["rain", "jpeg"], "sure": 0.5}],
         [{"grid": ["haze", "lowlight"], "sure": 0.5}]]  # fmt: skip


class TestSteps:
    """What restores where no leaf is for just what is there."""

    @pytest.fixture
    def network(self):
        return made(forms={}, steps=STEPS, believed=0.6, alone=0.6, certain={"haze": 0.9})

    def test_they_remove_what_was_said(self, network):
        x = torch.rand(2, 3, 40, 56)
        told = network.instruct(network.analyse(x), ["noise", "lowlight"])
        assert network.account(told) == [("steps: noise, lowlight", "all")] * 2
        fine = network.expert(2)(x, network.base.instruct(told, ["noise"]))
        wanted = network.scene(fine, network.scene.instruct(network.scene.analyse(x), ["lowlight"]))
        torch.testing.assert_close(network(x, told), wanted)
        twin = accelerate(network)
        by_twin = twin(x, twin.instruct(twin.analyse(x), ["noise", "lowlight"]))
        torch.testing.assert_close(by_twin, wanted, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("types", [["rain", "haze"], ["noise"]])
    def test_a_leaf_for_just_that_comes_first(self, network, types):
        told = network.instruct(network.analyse(torch.rand(1, 3, 40, 40)), types)
        assert set(network.tree.leaves[int(told["leaf"])].types) == set(types)
        assert int(told["expert"]) < network.tree.experts

    def test_auto_mode_takes_them_where_two_are_certainly_needed(self, network):
        probabilities = torch.full((6, 7), 0.1)
        probabilities[0, [0, 5]] = 0.7  # noise and darkness
        probabilities[1, [0, 2]] = torch.tensor([0.7, 0.8])  # noise, and haze, but not certainly
        probabilities[2, 5] = 0.9  # darkness alone
        probabilities[3, [0, 2, 6]] = torch.tensor([0.7, 0.95, 0.55])
        probabilities[4, [0, 5]] = 0.7  # the same as the first, but an expert was chosen
        probabilities[5, [1, 6]] = 0.9  # rain and JPEG blocks, which one step removes
        level = torch.tensor([0, 0, 0, 0, 1, 0])
        found = network.agreement.chosen(torch.full((6,), 1), level, torch.zeros(6, 8), torch.logit(probabilities))
        beyond = network.tree.experts
        assert found["expert"].tolist() == [beyond, 0, 0, beyond, 2, 0]

    def test_auto_mode_takes_them_and_goes_by_the_estimate(self, network):
        x = torch.rand(1, 3, 32, 32)
        with torch.no_grad():  # an estimate of noise, JPEG blocks and darkness, and of nothing else
            network.extractor.presence.weight.zero_()
            network.extractor.presence.bias.copy_(torch.tensor([3.0, -3, -3, -3, -3, 3, 3]))
        context = network.analyse(x)
        assert network.account(context) == [("steps: noise, jpeg, lowlight", "all")]
        fine = network.expert(2)(x, network.base.instruct(context, ["noise"]))
        fine = network.base(fine, network.base.instruct(context, ["jpeg"]))
        wanted = network.scene(fine, network.scene.instruct(network.scene.analyse(x), ["lowlight"]))
        torch.testing.assert_close(network(x), wanted)

    def test_a_batch_may_have_them_and_others(self, network):
        x = torch.rand(2, 3, 24, 24)
        plain = network.analyse(x)
        plain = {**plain, "expert": torch.zeros_like(plain["expert"]), "remove": plain["found"]}
        told = network.instruct(plain, ["snow", "jpeg"])
        mixed = {name: torch.cat([plain[name][:1], told[name][1:]]) for name in plain}
        wanted = torch.cat([network(x[:1], select(plain, [0])), network(x[1:], select(told, [1]))])
        torch.testing.assert_close(network(x, mixed), wanted)

    def test_tiles_agree_with_the_whole_picture(self, network):
        x = torch.rand(1, 3, 200, 400)
        context = network.instruct(network.analyse(x), ["noise", "haze"])
        tiled = Engine(network, device="cpu", precision="float32", tile=248).restore(x, context)
        whole = Engine(network, device="cpu", precision="float32", tile=None).restore(x, context)
        assert tiled.tiles > 1
        torch.testing.assert_close(tiled.pictures, whole.pictures, atol=1e-3, rtol=0)

    def test_a_device_need_not_wait_for_it(self):
        network, x = made(forms={}, steps=STEPS[:2]), torch.rand(1, 3, 40, 40)
        told = host_routes(network.instruct(network.analyse(x), ["noise", "lowlight"]))
        far = {name: value if is_route(name) else value.to("meta") for name, value in told.items()}
        # Tensors on the meta device have no values: whoever reads one fails.
        assert network.to("meta")(x.to("meta"), far).shape == x.shape

    def test_the_exported_graph_rests_where_nothing_is_certain(self, network, tmp_path):
        card = Card(name="tiny", model="test_unirestorer_compact", options=network.options)
        export(network, tmp_path / "out", card, size=64)
        exported = load_exported(tmp_path / "out")
        x = torch.rand(2, 3, 48, 64)
        context = dict(exported.analyse(x))
        context["expert"] = torch.full_like(context["expert"], network.tree.experts)
        context[CERTAINTY] = torch.tensor([[0.1] * 7, [0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1]])
        restored = exported(x, context)
        torch.testing.assert_close(restored[0], x[0])
        torch.testing.assert_close(restored, network(x, context), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("number", [COMPOSED, ALONE])
def test_tiles_know_where_they_lie(number):
    network, x = made(), torch.rand(1, 3, 96, 200)
    context = forced(network, x, number)
    whole = network(x, context)
    tile = network(x[..., 80:200], {**context, PLACE: torch.tensor([[0, 80, 96, 200]])})
    # The first expert sees as far as its overlap; the grid itself needs no surroundings.
    torch.testing.assert_close(tile[..., 64:], whole[..., 144:], atol=1e-5, rtol=1e-4)


def test_the_engine_s_tiles_agree_with_the_whole_picture():
    network, x = made(), torch.rand(1, 3, 200, 400)
    context = forced(network, x, COMPOSED)
    tiled = Engine(network, device="cpu", precision="float32", tile=248).restore(x, context)
    whole = Engine(network, device="cpu", precision="float32", tile=None).restore(x, context)
    assert tiled.tiles > 1
    torch.testing.assert_close(tiled.pictures, whole.pictures, atol=1e-3, rtol=0)


def test_the_fast_form_does_the_same():
    network, x = made(), torch.rand(2, 3, 40, 56)
    twin = accelerate(network)
    assert twin is not None
    assert twin.uses_place
    for number in (COMPOSED, ALONE):
        context = forced(network, x, number)
        torch.testing.assert_close(twin(x, context), network(x, context), atol=1e-4, rtol=1e-4)


def test_a_crop_is_restored_at_its_place():
    network, x = made(), torch.rand(2, 3, 64, 96)
    context = network.analyse(x)
    crop = network.restore_with(ALONE, centre(x, 32), {**context, PLACE: place_of_centre(x, 32)})
    torch.testing.assert_close(crop, centre(network.restore_with(ALONE, x, context), 32))
    assert place_of_centre(x, None).tolist() == [[0, 0, 64, 96]] * 2


def test_prints_follow_the_grid_and_the_first_expert():
    network = made()
    before = prints(network)
    with torch.no_grad():
        network.scene.head.bias.add_(1)
    after = prints(network)
    assert [n for n in range(len(before)) if before[n] != after[n]] == [ALONE, COMPOSED]


def test_exported_graphs_know_places_too(tmp_path: Path):
    flat = {"parts": [[{"expert": 2, "told": ["rain"]}], [{"grid": ["haze"], "flatten": 2}]]}
    network, x = made(forms={COMPOSED: flat}), torch.rand(1, 3, 96, 208)
    card = Card(name="tiny", model="test_unirestorer_compact", options=network.options)
    manifest = export(network, tmp_path / "out", card, size=64)
    assert PLACE in manifest.experts.inputs
    exported = load_exported(tmp_path / "out")
    context = dict(exported.analyse(x))
    assert context[PLACE].tolist() == [[0, 0, 96, 208]]
    context["expert"] = torch.full_like(context["expert"], COMPOSED)
    whole = network(x, forced(network, x, COMPOSED))
    torch.testing.assert_close(exported(x, context), whole, atol=1e-4, rtol=1e-3)
    tile = exported(x[..., 80:208], {**context, PLACE: torch.tensor([[0, 80, 96, 208]])})
    torch.testing.assert_close(tile[..., 64:], whole[..., 144:], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scene": None}, "set scene"),
        ({"forms": {3: {"parts": []}}}, "list of steps"),
        ({"forms": {3: {"parts": [[]]}}}, "list of steps"),
        ({"forms": {3: {"parts": [[{"grid": []}]]}}}, "is no part"),
        ({"forms": {3: {"parts": [[{"grid": ["haze"]}]], "decoder_blocks": [1, 2]}}}, "is not the form"),
        ({"forms": {3: {"parts": [[{"grid": ["hase"]}]]}}}, "did you mean 'haze'"),
        ({"forms": {3: {"parts": [[{"expert": 1}]]}}}, "which is not there"),
        ({"forms": {3: {"parts": [[{"expert": 40}]]}}}, "which is not there"),
        ({"forms": {3: {"parts": [[{"expert": 3}]]}}}, "made of others itself"),
        ({"forms": {3: {"parts": [[{"expret": 2}]]}}}, "is no part"),
        ({"forms": {3: {"parts": [[{"expert": 2}]], "certainty": {"haze": [0.7, 0.2]}}}}, "the smaller first"),
        ({"forms": {3: {"parts": [[{"expert": 2}]], "certainty": {"hase": [0.2, 0.7]}}}}, "did you mean 'haze'"),
        ({"forms": {3: {"parts": [[{"parts": [[{"expert": 40}]]}]]}}}, "which is not there"),
        ({"forms": {3: {"parts": [[{"expert": 2, "sure": 0.5}]]}}}, "a probability of what it is told"),
        ({"forms": {3: {"parts": [[{"expert": 2, "told": ["rain"], "sure": 1.5}]]}}}, "sure 1.5"),
        ({"forms": {3: {"parts": [[{"parts": [[{"grid": ["haze"]}]], "sure": 0.5}]]}}}, "its parts may be"),
        ({"steps": [[{"own": []}]]}, "no parameters of its own"),
        ({"certain": {"hase": 0.5}}, "did you mean 'haze'"),
        ({"steps": [[{"expert": 3}]]}, "steps is made of expert 3, which is made of others"),
        ({"steps": [[{"grid": ["haze"]}]], "scene": None, "forms": {}}, "set scene"),
    ],
)
def test_forms_that_are_none_are_refused(changes, message):
    with pytest.raises((InvalidValueError, UnknownNameError), match=message):
        made(**changes)


def test_without_a_context_there_is_nothing_to_go_by():
    network = made()
    expert = network.expert(ALONE)
    assert isinstance(expert, ComposedExpert)
    with pytest.raises(InvalidValueError, match="scene_features"):
        expert(torch.rand(1, 3, 16, 16))
