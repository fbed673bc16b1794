"""The shipped form of UniRestorer is trained in four stages, on tiny networks and made-up pictures."""

import json
from pathlib import Path

import pytest
import torch

from moir.base.errors import RecipeError, TrainingError
from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import create_model, load_model
from moir.picture import from_tensor, write
from moir.training import load_recipe
from moir.training.data import DamagedPatches, load_pictures
from moir.training.recipe import Damage
from moir.training.tree.assembly import assemble
from moir.training.tree.calibration import as_brought, expected_calibration_error, fit, weigh
from moir.training.tree.experts import damage_of, form_of, recipe_of, train_experts, trained_experts
from moir.training.tree.outcomes import Outcomes, measure
from moir.training.tree.router import leaf_terms, level_terms, regret_of_levels, train_router
from moir.training.tree.stages import train_tree
from moir.universal.clustering import Label, cluster_tree
from moir.universal.compact_extractor import CompactExtractor
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.router import Router

TINY = {"width": 8, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1), "embedding": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pictures and a tiny shared network."""
    root = tmp_path_factory.mktemp("tree")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 4), ("held_out", 2)):
        for number in range(count):
            small = torch.rand(1, 3, 9, 9, generator=generator)
            picture = torch.nn.functional.interpolate(small, size=(104, 96), mode="bicubic").clamp(0, 1)
            write(from_tensor(picture[0]), root / part / f"{number}.png")
    torch.manual_seed(0)
    base = create_model("test_compact")
    write_tensors(root / "base.safetensors", base.state_dict())
    card = Card("base", "compact", base.options, sha256=sha256_of(root / "base.safetensors"))
    card.write(root / "base.json")
    return root


def text(place: Path, **changes: object) -> Path:
    """A recipe that runs in seconds."""
    content = {
        "kind": "tree",
        "name": "tiny",
        "base": str(place / "base.safetensors"),
        "data": {
            "folders": [str(place / "train")],
            "workers": 0,
            "instruct": 0,
            "damage": {"types": {"noise": 1, "haze": 1, "blur": 1}},
        },
        "extractor": {"steps": 3, "batch": 8, "sizes": {64: 1, 80: 1}, "features": 8, "width": 4, "fresh": True},
        "cluster": {"samples": 40, "groups": [2, 4]},
        "experts": {"steps": {"type": 2, "degree": 1}, "batch": 2, "patch": 32, "precision": "no"},
        "router": {"samples": 32, "size": 64, "crop": 32, "epochs": 2, "batch": 16},
        "held_out": {"folders": [str(place / "held_out")], "limit": 1, "crop": 64},
        "save_every": 1,
        **changes,
    }
    path = place / "recipe.yaml"
    path.write_text(json.dumps(content))
    return path


def test_all_stages_make_a_network_that_restores_and_figures(place):
    out = place / "run"
    seen: list[tuple[str, int, int]] = []
    weights = train_tree(load_recipe(text(place)), out, lambda *step: seen.append(step[:3]))
    assert ("extractor", 3, 3) in seen
    network, card = load_model(str(weights))
    assert isinstance(network, CompactUniRestorer)
    assert card.parts == {}  # the shared network is not a shipped one, so it is in the file
    x = torch.rand(1, 3, 70, 50)
    assert network(x).shape == x.shape
    for number in network.trained:  # every expert differs from the shared network, and only where it may
        names = dict(network.experts[number].named_parameters())
        assert any(not torch.equal(value, network.base.get_parameter(name)) for name, value in names.items())
        assert not any(name.startswith(("middle.0.conv", "estimator")) for name in names)
    for figure in (
        "extractor/reliability.png",
        "extractor/confusion.png",
        "cluster/embedding.png",
        "cluster/tree.png",
        "router/usage.png",
        "router/granularity.png",
    ):
        assert (out / figure).stat().st_size > 1000, figure
    members = json.loads((out / "cluster" / "members.json").read_text())
    assert sum(sum(count.values()) for count in members.values()) == 40


def test_a_stopped_run_goes_on_to_the_same_end(place, tmp_path):
    whole = load_recipe(text(place), {"stage": "extractor"})
    once, _ = read_tensors(train_tree(whole, tmp_path / "once"))

    class StopError(Exception):
        pass

    def stop(name: str, step: int, steps: int, losses: dict[str, float]) -> None:
        if step == 2:
            raise StopError

    with pytest.raises(StopError):
        train_tree(whole, tmp_path / "twice", stop)
    twice, _ = read_tensors(train_tree(whole, tmp_path / "twice"))
    assert all(torch.equal(value, twice[name]) for name, value in once.items())


def test_a_stage_says_what_it_needs(place, tmp_path):
    with pytest.raises(TrainingError, match=r"extractor\.safetensors is not there: run the stages before"):
        train_tree(load_recipe(text(place), {"stage": "cluster"}), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stage", "expert", "stage"),
        ("extractor.stepz", "3", "did you mean steps"),
        ("data.folders", "[]", "exactly one of folders"),
        ("data.damage.clean", "1", "clean is 1, so that nothing is damaged"),
    ],
)
def test_wrong_recipes_are_refused(place, key, value, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(text(place), {key: value})


def test_shipped_recipes_load():
    folder = Path(__file__).parents[2] / "recipes" / "tree"
    stages = {path.stem: load_recipe(path).stage for path in folder.glob("*.yaml") if path.stem != "join"}
    assert stages == {name: name for name in ("all", "extractor", "cluster", "experts", "router")}


@pytest.fixture
def grid(tmp_path) -> str:
    """Weights of a tiny bilateral grid."""
    torch.manual_seed(1)
    network, path = create_model("test_bilateral_grid"), tmp_path / "grid.safetensors"
    torch.nn.init.normal_(network.head.weight, std=0.1)
    write_tensors(path, network.state_dict())
    Card("grid", "bilateral_grid", network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return str(path)


def test_experts_made_of_others_alone_are_not_trained(place, tmp_path, grid):
    tree = _tree()
    parts = [[{"expert": "rain (type)", "told": ["rain"]}], [{"told": ["haze"]}]]
    itself = {"parts": [[{"expert": "own"}, {"expert": "rain (type)"}]], "form": {"decoder_blocks": [1, 2]}}
    each = {"light rain (degree)": {"parts": parts}, "heavy rain (degree)": itself}
    steps = [[{"expert": "rain (type)", "told": ["rain"], "sure": 0.5}], [{"told": ["haze"], "sure": 0.5}]]
    experts = {"steps": {"type": 1, "degree": 1}, "batch": 2, "patch": 32, "precision": "no", "each": each,
               "combined": steps}  # fmt: skip
    recipe = load_recipe(text(place, experts=experts, scene=grid))
    numbers = {tree.name_of(n): n for n in range(1, tree.experts)}
    assert [tree.name_of(n) for n in trained_experts(recipe, tree)] == ["rain", "heavy rain"]
    members = {"light rain": {"light rain": 5}, "heavy rain": {"heavy rain": 5}, "clean": {"clean": 3}}
    weights = train_experts(recipe, tree, members, tmp_path / "experts")
    extractor = tmp_path / "extractor.safetensors"
    write_tensors(extractor, CompactExtractor(features=8, width=4).state_dict())
    network = assemble(recipe, tree, extractor, weights)
    x = torch.rand(2, 3, 40, 40)
    context = network.analyse(x)
    fine = network.restore_with(numbers["rain"], x, context)
    scene = load_model(grid)[0]
    wanted = scene(fine, scene.instruct(scene.analyse(x), ["haze"]))
    torch.testing.assert_close(network.restore_with(numbers["light rain"], x, context), wanted)
    told = network.instruct(context, ["rain", "haze"])
    fine = network.expert(numbers["rain"])(x, network.base.instruct(told, ["rain"]))
    torch.testing.assert_close(network(x, told), scene(fine, scene.instruct(scene.analyse(x), ["haze"])))
    heavy = network.kinds[numbers["heavy rain"]]
    assert heavy.words == f"experts own + {numbers['rain']}"
    assert heavy.itself.options["decoder_blocks"] == [1, 2]
    own, _ = read_tensors(weights[numbers["heavy rain"]])
    found = network.experts[numbers["heavy rain"]].state_dict()
    assert any(name.startswith("decoder1.1.") for name in found)
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.items())
    # The estimate counts both: at first the extractor alone, then what fits held-out pictures.
    before = context["presence"]
    bits = weigh(network, recipe, count=48)
    assert (bits[2].mean() <= bits[:2].mean(1) + 1e-4).all()
    assert not torch.allclose(network.analyse(x)["presence"], before)


def test_a_part_must_be_in_the_tree(place):
    each = {"light rain (degree)": {"parts": [[{"expert": "hail (type)"}]]}}
    recipe = load_recipe(text(place, experts={"steps": {"type": 1, "degree": 1}, "each": each}))
    with pytest.raises(TrainingError, match=r"'hail \(type\)' is no expert of this tree, which has all \(all\)"):
        trained_experts(recipe, _tree())


def _tree():
    points = [[0.0], [0.1], [1.0], [1.1], [9.0], [9.1]]
    labels = [Label(("rain",), "light")] * 2 + [Label(("rain",), "heavy")] * 2 + [Label(())] * 2
    return cluster_tree(points, labels, (2, 3)).tree


def test_experts_of_one_type_are_told_what_they_are_for(place):
    recipe, tree = load_recipe(text(place)), _tree()
    members = {"light rain": {"light rain": 5}, "heavy rain": {"heavy rain": 4, "rain-haze": 1}, "clean": {"clean": 3}}
    numbers = trained_experts(recipe, tree)
    assert [tree.name_of(n) for n in numbers] == ["rain", "light rain", "heavy rain"]
    run = recipe_of(recipe, tree, members, numbers[2], TINY, "parent.safetensors")
    assert run.data.told == ["rain"]
    assert run.data.instruct == 1
    assert run.data.damage.levels["light"] == 0
    assert run.model.start == "parent.safetensors"


def test_larger_patches_come_in_smaller_batches(place):
    tree = _tree()
    each = {"rain (type)": {"patch": 64, "scenes": 0.5}}
    experts = {"steps": {"type": 1, "degree": 1}, "batch": 16, "patch": 32, "each": each}
    recipe = load_recipe(text(place, experts=experts))
    members = {"light rain": {"light rain": 5}, "heavy rain": {"heavy rain": 5}, "clean": {"clean": 3}}
    rain, light, _ = (recipe_of(recipe, tree, members, n, TINY, "x") for n in trained_experts(recipe, tree))
    assert (rain.data.patch, rain.batch, rain.data.scenes) == (64, 4, 0.5)
    assert (light.data.patch, light.batch, light.data.scenes) == (32, 16, 0)


def test_a_form_holds_for_the_experts_below(place, tmp_path):
    tree = _tree()
    rain, light, heavy = trained_experts(load_recipe(text(place)), tree)
    each = {
        "rain (type)": {"form": {"decoder_blocks": [1, 3]}},
        "heavy rain (degree)": {"form": {"decoder_blocks": [1, 5]}},
    }
    experts = {"steps": {"type": 1, "degree": 1}, "batch": 2, "patch": 32, "precision": "no", "each": each}
    recipe = load_recipe(text(place, experts=experts))
    assert form_of(recipe, tree, light) == form_of(recipe, tree, rain) == {"decoder_blocks": [1, 3]}
    assert form_of(recipe, tree, heavy) == {"decoder_blocks": [1, 5]}
    assert form_of(recipe, tree, 0) == {}
    members = {"light rain": {"light rain": 5}, "heavy rain": {"heavy rain": 5}, "clean": {"clean": 3}}
    weights = train_experts(recipe, tree, members, tmp_path)
    extractor = tmp_path / "extractor.safetensors"
    write_tensors(extractor, CompactExtractor(features=8, width=4).state_dict())
    network = assemble(recipe, tree, extractor, weights)
    assert [len(network.expert(n).decoder1) for n in (0, rain, light, heavy)] == [1, 3, 3, 5]
    x = torch.rand(1, 3, 24, 24)
    for number, path in weights.items():  # put together, an expert does what its run ended with
        alone = load_model(str(path))[0]
        context = alone.instruct(alone.analyse(x), ["rain"])
        torch.testing.assert_close(network.restore_with(number, x, network.analyse(x)), alone(x, context))
    saved = create_model("unirestorer_compact", **json.loads(json.dumps(network.options)))
    assert saved.load_state_dict(network.state_dict())


def test_mixes_are_trained_on_what_they_hold():
    damage = damage_of({"noise-haze": 6, "heavy noise-haze": 2, "clean": 2}, Damage())
    assert damage.single == 0
    assert damage.clean == pytest.approx(0.2)
    assert damage.types["rain"] == 0
    assert damage.types["noise"] == damage.types["haze"] == 8


def test_a_third_of_what_estimates_are_weighed_on_is_sound(place):
    recipe = load_recipe(text(place))
    data = as_brought(recipe)
    before, after = recipe.data.damage, data.damage
    assert after.clean == pytest.approx(1 / 3)
    assert after.single / after.named == pytest.approx(before.single / before.named)
    assert after.single == pytest.approx(before.single * (2 / 3) / (1 - before.clean))
    drawn = DamagedPatches(load_pictures(data.folders, 64), data, 0)
    sound = [not drawn[number]["presence"].any() for number in range(150)]
    assert 0.2 < sum(sound) / len(sound) < 0.47


def test_calibration_undoes_overconfidence():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 7, generator=generator) * 2
    truth = (torch.rand(4000, 7, generator=generator) < torch.sigmoid(logits)).float()
    slope, offset = fit((3 * logits + 1)[None], truth)
    torch.testing.assert_close(slope, torch.full((1, 7), 1 / 3), atol=0.05, rtol=0)
    before = expected_calibration_error(torch.sigmoid(3 * logits[:, 0] + 1), truth[:, 0])
    after = expected_calibration_error(torch.sigmoid((3 * logits[:, 0] + 1) * slope[0, 0] + offset[0]), truth[:, 0])
    assert after < 0.03 < before


def test_two_estimates_are_better_than_either():
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(2, 6000, 7, generator=generator)
    truth = (torch.rand(6000, 7, generator=generator) < torch.sigmoid(2 * both[0] + both[1])).float()
    slopes, offset = fit(both, truth)
    torch.testing.assert_close(slopes.mean(1), torch.tensor([2.0, 1.0]), atol=0.1, rtol=0)
    assert offset.abs().max() < 0.2


@pytest.fixture
def outcomes() -> tuple[Outcomes, torch.Tensor, torch.Tensor]:
    """Two kinds of pictures, each with an expert of its own; of every fifth picture nothing can be known."""
    generator = torch.Generator().manual_seed(0)
    tree = _tree()
    leaf = torch.randint(3, (300,), generator=generator)
    centres = 2 * torch.eye(8)[:3]
    points = centres[leaf] + 0.05 * torch.randn(300, 8, generator=generator)
    mse = torch.full((300, tree.experts), 1e-2)
    mse[torch.arange(300), tree.table()[leaf, 2]] = 1e-3
    unsure = torch.arange(300) % 5 == 0
    points[unsure] = 0
    mse[unsure] = 1e-2
    mse[unsure, 0] = 1e-3
    zero = torch.zeros(300, 7)
    return Outcomes(points, zero, zero.long(), mse, mse.sqrt(), zero[:, :1] + mse * 0, mse[:, 0]), leaf, centres


def test_the_router_goes_fine_where_it_knows_and_coarse_where_it_does_not(place, outcomes):
    found, leaf, centres = outcomes
    tree = _tree()
    stage = load_recipe(text(place), {"router.epochs": "60", "router.batch": "64", "router.jitter": "0.05"}).router
    route = train_router(found, tree, centres, leaf, stage)(found.points)
    unsure = torch.arange(300) % 5 == 0
    assert (route.level[unsure] == 0).float().mean() > 0.95
    sure = ~unsure
    assert (route.leaf[sure] == leaf[sure]).float().mean() > 0.95
    assert (route.level[sure] == 2).float().mean() > 0.95


def test_regret_counts_up_to_where_pictures_look_alike():
    psnr = torch.tensor([[20.0, 30.0, 25.0], [48.0, 99.0, 20.0]])
    experts = torch.tensor([[0, 1, 2], [0, 1, 2]])
    assert regret_of_levels(psnr, experts).tolist() == [[10, 0, 5], [0, 0, 20]]


def test_the_published_losses_have_a_gradient_to_both_gates(place, outcomes):
    found, leaf, centres = outcomes
    off = dict.fromkeys(("router.level", "router.regret", "router.choice"), "0")
    settings = {"router.reconstruction": "1", "router.balance": "0.01", **off}
    stage = load_recipe(text(place), settings).router
    router = Router(8, 3, 3)
    rows = torch.arange(20)
    route = router(found.points[rows])
    terms = {**leaf_terms(route, leaf[rows], centres, stage), **level_terms(route, found, rows, _tree().table(), stage)}
    assert set(terms) == {"leaf", "uncertainty", "balance", "reconstruction"}
    terms["reconstruction"].backward(retain_graph=True)
    for gate in (router.lf_gate, router.layer_gate):
        assert gate[0].weight.grad is not None


def test_outcomes_are_those_of_each_expert(tmp_path):
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact").eval()
    x = torch.rand(2, 3, 64, 64)
    batch = {"input": x, "target": x * 0.9, "presence": torch.zeros(2, 7), "degree": torch.zeros(2, 7).long()}
    found = measure(network, [batch], crop=None)
    clean = next(n for n in range(network.tree.experts) if network.tree.is_clean(n))
    torch.testing.assert_close(found.mse[:, clean], found.before)
    assert found.mse.shape == (2, network.tree.experts)
    found.save(tmp_path / "outcomes.safetensors")
    loaded = Outcomes.load(tmp_path / "outcomes.safetensors")
    assert torch.equal(loaded.psnr, found.psnr)
    assert loaded.changed(network) == []
    with torch.no_grad():
        network.experts[network.trained[0]].get_parameter("head.bias").add_(0.1)
    assert loaded.changed(network) == [network.trained[0]]
    again, anew = loaded.refreshed(network, [batch]), measure(network, [batch])
    torch.testing.assert_close(again.mse, anew.mse)
    assert not torch.equal(again.mse, found.mse)
    assert again.experts == anew.experts
    with pytest.raises(TrainingError, match="other pictures"):
        loaded.refreshed(network, [{**batch, "input": x * 0.5}])
    assert len(again.followed_by(anew)) == 4


def test_places_follow_the_extractor():
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact").eval()
    x = torch.rand(2, 3, 64, 64)
    batch = {"input": x, "target": x * 0.9, "presence": torch.zeros(2, 7), "degree": torch.zeros(2, 7).long()}
    found = measure(network, [batch])
    assert found.is_of(network)
    with torch.no_grad():
        network.extractor.mix[2].bias.add_(1.0)
    assert not found.is_of(network)
    again = found.refreshed(network, [batch])
    torch.testing.assert_close(again.points, network.extractor.place(network.extractor(x)))
    assert not torch.equal(again.points, found.points)
    assert torch.equal(again.mse, found.mse)  # no expert was run again
    assert again.is_of(network)
