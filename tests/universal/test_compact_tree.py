"""The shipped form of UniRestorer: experts that share one network."""

import copy
from dataclasses import replace

import pytest
import torch

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.base.names import TYPES
from moir.models import create_model
from moir.networks.compact import Compact
from moir.restore import Restorer
from moir.runtime.fast import accelerate
from moir.universal.compact_experts import FINE
from moir.universal.compact_extractor import CompactExtractor, contrastive_loss
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.expert_form import grown, own_names, with_form


@pytest.fixture
def network() -> CompactUniRestorer:
    torch.manual_seed(0)
    made = create_model("test_unirestorer_compact")
    with torch.no_grad():  # away from initial values, so that every expert and every route is different
        for parameter in made.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    assert isinstance(made, CompactUniRestorer)
    return made.eval()


def number_of(network: CompactUniRestorer, name: str, level: str) -> int:
    tree = network.tree
    return next(n for n in range(tree.experts) if (tree.name_of(n), tree.level_of(n)) == (name, level))


def test_experts_share_what_is_not_their_own(network):
    expert = network.expert(number_of(network, "light noise", "degree"))
    own = set(own_names(network.base, FINE))
    assert own
    for name, parameter in expert.named_parameters():
        assert (parameter is network.base.get_parameter(name)) == (name not in own)


def test_an_expert_is_the_shared_network_with_its_own_parameters_put_in(network):
    number = number_of(network, "noise", "type")
    x = torch.rand(2, 3, 21, 30)
    whole = copy.deepcopy(network.base)
    whole.load_state_dict(dict(network.experts[number].named_parameters()), strict=False)
    context = network.analyse(x)
    told = whole.instruct(whole.analyse(x), ["noise"])
    torch.testing.assert_close(network.restore_with(number, x, context), whole(x, told))


def test_added_blocks_change_nothing_at_first(network):
    options = with_form(network.base_options, {"encoder_blocks": (2, 1), "decoder_blocks": (1, 4)})
    larger, x = grown(network.base.state_dict(), options).eval(), torch.rand(2, 3, 21, 30)
    assert len(larger.decoder1) == 4
    torch.testing.assert_close(larger(x), network.base(x))
    with pytest.raises(InvalidValueError, match="'width'"):
        with_form(network.base_options, {"width": 16})
    with pytest.raises(InvalidValueError, match=r"decoder1\.\d"):
        grown(larger.state_dict(), network.base_options)


def test_the_coarsest_expert_is_the_shared_network(network):
    x = torch.rand(1, 3, 40, 33)
    torch.testing.assert_close(network.restore_with(0, x, network.analyse(x)), network.base(x))


def test_clean_pictures_come_back_untouched(network):
    x = torch.rand(1, 3, 20, 20)
    for number in range(network.tree.experts):
        if network.tree.is_clean(number):
            assert torch.equal(network.restore_with(number, x, network.analyse(x)), x)
            with pytest.raises(InvalidValueError, match="identity"):
                network.expert(number)


def test_an_expert_without_parameters_does_what_its_parent_does():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", trained=[2]).eval()
    x = torch.rand(1, 3, 20, 20)
    context = network.analyse(x)
    child = number_of(network, "heavy noise", "degree")
    assert network.owner_of(child) == 2
    assert torch.equal(network.restore_with(child, x, context), network.restore_with(2, x, context))
    assert network.owner_of(number_of(network, "rain-haze", "degree")) == 0


def test_a_batch_with_several_routes_is_that_of_its_pictures(network):
    x = torch.rand(4, 3, 24, 17)
    context = dict(network.analyse(x))
    context["expert"] = torch.tensor([0, 2, 1, 2])
    together = network(x, context)
    for row in range(4):
        alone = network(x[row : row + 1], {name: value[row : row + 1] for name, value in context.items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_tiles_share_the_picture_s_route(network):
    x = torch.rand(1, 3, 64, 64)
    context = network.analyse(x)
    whole = network(x, context)
    tiles = network(torch.cat([x[..., :48], x[..., 16:]]), context)
    assert whole.shape == x.shape
    assert tiles.shape == (2, 3, 64, 48)


def test_instructions_prune_the_tree(network):
    context = network.analyse(torch.rand(2, 3, 40, 40))
    told = network.instruct(context, ["noise"])
    leaves = [network.tree.leaves[i] for i in told["leaf"].tolist()]
    assert all(leaf.types == ("noise",) for leaf in leaves)
    assert all(name in ("noise", "light noise", "heavy noise") for name, _ in network.account(told))
    assert told["remove"].tolist() == [[1.0, *[0.0] * 6, 1.0]] * 2


def test_an_expert_of_one_type_does_not_restore_where_there_is_another_too():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", alone=0.6).eval()
    noise = number_of(network, "light noise", "degree")
    route = network.route(torch.zeros(3, 16))
    leaf = next(i for i, leaf in enumerate(network.tree.leaves) if noise in leaf.experts)
    route = replace(route, leaf=torch.full((3,), leaf), level=torch.full((3,), 2))
    presence = torch.full((3, 7), -3.0)
    presence[:, 0] = 2  # noise, in all of them
    presence[1, 1] = 0.2  # rain: 0.55
    presence[2, 1] = 0.6  # 0.65
    assert network.agreement.agreed(presence, route).level.tolist() == [2, 2, 0]
    # A type on which an expert of a mix would not act yet is no reason either.
    careful = create_model("test_unirestorer_compact", alone=0.6, sure_mixed={"rain": 0.7}).agreement
    assert careful.agreed(presence, route).level.tolist() == [2, 2, 2]


def test_an_expert_is_let_loose_only_where_the_estimate_agrees():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", sure={"noise": 0.7}).eval()
    route = network.route(torch.randn(3, 16))
    route = replace(route, leaf=torch.tensor([1, 1, 3]), level=torch.tensor([2, 2, 2]))
    presence = torch.full((3, 7), -9.0)
    presence[1, 0] = 2.0  # 88%
    context = {"presence": presence, "found": torch.zeros(3, 8)}
    decided = network._decided(context, route)
    assert network.account(decided) == [("all", "all"), ("light noise", "degree"), ("rain-haze", "degree")]


def test_a_mix_that_is_doubted_makes_way_for_the_next_best_leaf():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", sure_mixed={"haze": 0.8}).eval()
    route = network.route(torch.randn(4, 16))
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(4, -1)  # clean, light noise, heavy noise, rain-haze
    route = replace(route, leaf_logits=logits, leaf=logits.argmax(1), level=torch.full((4,), 2))
    presence = torch.full((4, 7), 3.0)
    haze = TYPES.index("haze")
    presence[:, haze] = torch.tensor([-3.0, 1.0, 1.5, 3.0])  # 5%, 73%, 82%, 95%
    presence[2, TYPES.index("rain")] = -9.0  # for rain no condition was given
    context = {"presence": presence, "found": torch.zeros(4, 8)}
    decided = network._decided(context, route)
    assert [name for name, _ in network.account(decided)] == ["heavy noise", "heavy noise", "rain-haze", "rain-haze"]
    assert decided["remove"][0].tolist() == [1.0, *[0.0] * 6, 1.0]


def test_a_picture_in_which_damage_is_believed_is_not_taken_for_sound():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", sure={"noise": 0.3}, believed=0.75).eval()
    route = network.route(torch.randn(3, 16))
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]]).expand(3, -1)  # clean, light noise, heavy noise, rain-haze
    route = replace(route, leaf_logits=logits, leaf=logits.argmax(1), level=torch.full((3,), 2))
    presence = torch.full((3, 7), -9.0)
    presence[:2, 0] = torch.tensor([1.0, 1.5])  # noise: 73%, 82%
    presence[2, TYPES.index("jpeg")] = 3.0  # no leaf is for it, and the estimate sees no noise
    decided = network._decided({"presence": presence, "found": torch.zeros(3, 8)}, route)
    assert [name for name, _ in network.account(decided)] == ["clean", "heavy noise", "all"]


def test_a_leaf_must_be_for_all_that_is_believed():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", believed=0.75).eval()
    route = network.route(torch.randn(4, 16))
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]]).expand(4, -1)  # clean, light noise, heavy noise, rain-haze
    route = replace(route, leaf_logits=logits, leaf=logits.argmax(1), level=torch.full((4,), 2))
    presence = torch.full((4, 7), -9.0)
    presence[0, [1, 2]] = 3.0  # rain and haze
    presence[1, 2] = 3.0  # of haze alone there is no leaf, but one of haze with rain
    presence[2, [0, 2]] = 3.0  # noise and haze, for which no leaf is: not sound, in any case
    presence[3, [0, 1]] = torch.tensor([3.0, 1.0])  # noise, and rain that is not believed
    decided = network._decided({"presence": presence, "found": torch.zeros(4, 8)}, route)
    assert [name for name, _ in network.account(decided)] == ["rain-haze", "rain-haze", "heavy noise", "heavy noise"]
    # A router that doubts them all is overruled where there is a leaf for what is believed.
    doubting = replace(route, level=torch.zeros(4, dtype=torch.long))
    decided = network._decided({"presence": presence, "found": torch.zeros(4, 8)}, doubting)
    assert [level for _, level in network.account(decided)] == ["type", "type", "all", "type"]


def test_leaves_of_some_types_are_left_to_their_finest_expert():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact", sure={"noise": 0.3}, finest=["noise"]).eval()
    route = network.route(torch.randn(5, 16))
    leaf, level = torch.tensor([1, 1, 1, 3, 0]), torch.tensor([1, 0, 1, 1, 1])
    route = replace(route, leaf_logits=5.0 * torch.eye(4)[leaf], leaf=leaf, level=level)
    presence = torch.full((5, 7), 3.0)
    presence[2, 0] = -3.0  # too little noise for an expert of it
    presence[4] = -3.0
    decided = network._decided({"presence": presence, "found": torch.zeros(5, 8)}, route)
    assert network.account(decided)[:3] == [("light noise", "degree"), ("all", "all"), ("all", "all")]
    assert [level for _, level in network.account(decided)[3:]] == ["type", "type"]  # a mix, and sound pictures
    mixed = create_model("test_unirestorer_compact", sure={"noise": 0.3}, finest=["noise", "rain"])
    decided = mixed._decided({"presence": presence, "found": torch.zeros(5, 8)}, route)
    assert [level for _, level in mixed.account(decided)] == ["degree", "all", "all", "degree", "type"]
    context = {**network.analyse(torch.rand(1, 3, 40, 40)), "level_logits": torch.tensor([[0.0, 1.0, 0.0]])}
    assert network.account(network.instruct(context, ["noise"]))[0][1] == "degree"


def test_conditions_for_unknown_types_are_refused():
    for name in ("sure", "sure_mixed"):
        with pytest.raises(UnknownNameError, match="haze"):
            create_model("test_unirestorer_compact", **{name: {"hase": 0.5}})
    with pytest.raises(UnknownNameError, match="haze"):
        create_model("test_unirestorer_compact", finest=["hase"])


def test_where_no_expert_is_for_it_the_shared_network_is_told(network):
    told = network.instruct(network.analyse(torch.rand(1, 3, 40, 40)), ["jpeg", "blur"])
    assert network.account(told) == [("all", "all")]
    assert told["remove"][0].tolist() == [float(t in ("jpeg", "blur")) for t in TYPES] + [1.0]
    with pytest.raises(UnknownNameError, match="rain"):
        network.instruct(told, ["rian"])


def test_a_copy_and_a_reload_are_independent(network, tmp_path):
    x = torch.rand(1, 3, 24, 24)
    before = network.restore_with(2, x, network.analyse(x))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.experts[2].get_parameter("head.bias").add_(1.0)
    assert torch.equal(network.restore_with(2, x, network.analyse(x)), before)
    assert not torch.allclose(other.restore_with(2, x, other.analyse(x)), before)
    fresh = create_model("test_unirestorer_compact").eval()
    fresh.load_state_dict(network.state_dict())
    torch.testing.assert_close(fresh.restore_with(2, x, fresh.analyse(x)), before)


def test_the_fast_form_decides_and_restores_alike(network):
    x = torch.rand(3, 3, 40, 33)
    context = dict(network.analyse(x))
    context["expert"] = torch.tensor([0, 1, 6])
    fast = accelerate(network)
    assert fast is not None
    torch.testing.assert_close(fast(x, context), network(x, context), atol=1e-4, rtol=0)
    assert fast.account(fast.analyse(x)) == network.account(network.analyse(x))
    assert Restorer(network, "tree", device="cpu").engine.engine == "fast"


def test_an_unknown_pattern_is_refused():
    with pytest.raises(InvalidValueError, match="encoder9"):
        create_model("test_unirestorer_compact", own=["encoder9.*"])


def test_the_extractor_starts_as_the_estimator_it_is_given():
    torch.manual_seed(0)
    base = Compact(embedding=16, estimator_width=8)
    extractor = CompactExtractor(features=24, width=8)
    extractor.start_from(base.estimator)
    x = torch.rand(2, 3, 130, 200)
    presence, degree = extractor.estimate(extractor(x))
    context = base.analyse(x)
    torch.testing.assert_close(presence, context["presence"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(degree, context["degree"], atol=1e-4, rtol=1e-4)
    with pytest.raises(InvalidValueError, match="width"):
        CompactExtractor(features=24, width=9).start_from(base.estimator)


def test_names_of_one_damage_are_one_embedding():
    extractor = CompactExtractor(features=8, width=4)
    presence = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 0, 0], [0.0] * 7])
    degree = torch.where(presence > 0, 1, -1)
    degree[1, 0] = 2
    names = extractor.name_embedding(presence, degree)
    torch.testing.assert_close(names.norm(dim=1), torch.ones(4))
    assert len({tuple(row) for row in names.tolist()}) == 4


def test_the_contrastive_loss_draws_pictures_to_their_names_and_not_from_each_other():
    names = torch.eye(4)[[0, 0, 1, 2]]
    labels = [(0,), (0,), (1,), (2,)]
    sharpness = torch.tensor(4.0)
    right = contrastive_loss(3 * names, names, labels, sharpness)
    wrong = contrastive_loss(3 * names.roll(2, 0), names, labels, sharpness)
    # Two of four pictures share a name: their logits are split between two equal places, log 2 for these two.
    torch.testing.assert_close(right, torch.tensor(2.0).log() / 2, atol=1e-4, rtol=0)
    assert wrong > 10


def test_representations_of_crops_are_those_of_the_pictures_they_are():
    extractor = CompactExtractor(features=8, width=4).eval()
    crops, thumbnail = torch.rand(2, 3, 3, 64, 64), torch.rand(2, 3, 64, 64)
    each = extractor.crop_representations(crops, thumbnail)
    assert each.shape == (2, 3, 8)
    torch.testing.assert_close(each[:, 1], extractor.represent(crops[:, 1:2], thumbnail))
