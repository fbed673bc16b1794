"""The router learns anew after an expert joined, on a tiny tree and made-up pictures."""

import copy
import json
from pathlib import Path

import pytest
import torch

from moir.adapted import save_adapter
from moir.adapters import attach
from moir.base.errors import RecipeError, TrainingError, UnknownNameError
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import create_model, load_model
from moir.picture import from_tensor, write
from moir.training import load_recipe
from moir.training.tree.join_recipe import JoinRecipe
from moir.training.tree.outcomes import Outcomes
from moir.training.tree.rejoin import Samples, centres_of, judge, present_router, train_join
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.tree_joining import join_tree

STAIN = 4
"""The number of the new leaf."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean pictures, pairs of a damage without a name (black stripes), and two trees that an adapter joined."""
    root = tmp_path_factory.mktemp("joining")
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        small = torch.rand(1, 3, 9, 9, generator=generator)
        picture = torch.nn.functional.interpolate(small, size=(80, 72), mode="bicubic").clamp(0, 1)[0]
        write(from_tensor(picture), root / "clean" / f"{number}.png")
        write(from_tensor(picture), root / "pairs" / "target" / f"{number}.png")
        striped = picture.clone()
        striped[:, ::3] = 0
        write(from_tensor(striped), root / "pairs" / "input" / f"{number}.png")
    torch.manual_seed(0)
    network = create_model("test_unirestorer_compact")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    write_tensors(root / "tree.safetensors", network.state_dict())
    Card("tree", "test_unirestorer_compact", network.options, sha256=sha256_of(root / "tree.safetensors")).write(
        root / "tree.json"
    )
    adapted = copy.deepcopy(network.base)
    attach(adapted, "conv", "stain")
    save_adapter(root / "adapter.safetensors", adapted, "stain", "test_compact")
    join_tree(
        root / "tree.safetensors", "stain", root / "adapter.safetensors", root / "stain.safetensors", types=["unknown"]
    )
    join_tree(
        root / "tree.safetensors", "darkness", root / "adapter.safetensors", root / "dark.safetensors",
        types=["lowlight"], degree="heavy",
    )  # fmt: skip
    return root


def recipe(place: Path, **settings: object) -> JoinRecipe:
    content = {
        "kind": "join",
        "name": "tiny",
        "start": str(place / "stain.safetensors"),
        "pairs": str(place / "pairs"),
        "own": 40,
        "data": {"folders": [str(place / "clean")], "workers": 0, "damage": {"types": {"noise": 1}}},
        "router": {
            "samples": 40,
            "size": 64,
            "crop": 32,
            "epochs": 150,
            "batch": 32,
            "jitter": 0.02,
            "learning_rate": 0.01,
        },
        **settings,
    }
    path = place / "recipe.yaml"
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    loaded = load_recipe(path)
    assert isinstance(loaded, JoinRecipe)
    return loaded


def opened(path: Path) -> CompactUniRestorer:
    network, _ = load_model(str(path))
    assert isinstance(network, CompactUniRestorer)
    return network


def test_the_router_learns_the_new_leaf_from_pairs(place: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    weights = train_join(recipe(place), tmp_path, lambda *step: seen.append(step))
    assert seen[-1] == (120, 120)  # 40 damaged, 40 of the pairs, 40 of their clean sides
    network, before = opened(weights), opened(place / "stain.safetensors")
    assert network.waiting == ()
    pairs = [torch.stack(list(pictures(place / "pairs" / part))) for part in ("input", "target")]
    with torch.inference_mode():
        striped, clean = (network.analyse(x)["leaf"] for x in pairs)
        assert not (before.analyse(pairs[0])["leaf"] == STAIN).any()
    assert (striped == STAIN).float().mean() > 0.8
    assert (clean == STAIN).float().mean() < 0.2
    account = json.loads((tmp_path / "account.json").read_text())
    assert account["own"]["n"] == 8
    assert account["own"]["new"] > 0.7
    assert account["others"]["new"] < 0.3
    assert set(account["own"]["psnr"]) == {"before", "after"}
    # Nothing but the router is another one.
    for name, value in before.state_dict().items():
        if name.startswith(("base.", "extractor.", "experts.")):
            assert torch.equal(network.state_dict()[name], value), name
    card = Card.read(weights.with_suffix(".json"))
    assert card.name == "tiny"
    assert card.compute["router_samples"] == 120


def pictures(folder: Path) -> list[torch.Tensor]:
    from moir.picture import read

    return [read(path).rgb[:, :64, :64] for path in sorted(folder.glob("*.png"))]


def test_damage_of_known_types_is_made(place: Path, tmp_path: Path) -> None:
    run = recipe(place, start=str(place / "dark.safetensors"), pairs=None)
    network = opened(train_join(run, tmp_path))
    assert network.waiting == ()
    account = json.loads((tmp_path / "account.json").read_text())
    assert account["own"]["new"] > 0.7
    assert account["others"]["new"] < 0.3


def test_what_was_measured_is_not_measured_again(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recipe(place, own=8, router={"samples": 8, "size": 64, "crop": 32, "epochs": 1, "batch": 8})
    first = train_join(run, tmp_path).read_bytes()

    def fail(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("moir.training.tree.rejoin.measure", fail)
    assert train_join(run, tmp_path).read_bytes() == first
    with pytest.raises(AssertionError, match="measured again"):  # other samples
        train_join(run.model_copy(update={"seed": 1}), tmp_path)


def test_a_router_learns_anew_without_a_new_leaf(place: Path, tmp_path: Path) -> None:
    run = recipe(place, start=str(place / "tree.safetensors"), pairs=None)
    network = opened(train_join(run, tmp_path))
    assert len(network.tree.leaves) == 4
    assert "own" not in json.loads((tmp_path / "account.json").read_text())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"pairs": None}, TrainingError, "'stain' is of none of the known types.*pairs=FOLDER"),
        ({"leaf": "stian"}, UnknownNameError, "stain"),
        ({"start": "tree.safetensors"}, TrainingError, "not clear which .none waits.; give leaf=NAME"),
        ({"start": "$NO_SUCH_TREE"}, TrainingError, "NO_SUCH_TREE is not set; give the tree: --set start=FILE"),
        ({"start": "compact"}, TrainingError, "is a Compact, not a tree"),
        ({"pairs": "clean"}, Exception, "no folder input"),
    ],
)
def test_what_cannot_be_done_is_said(
    place: Path, tmp_path: Path, settings: dict[str, str | None], error: type[Exception], message: str
) -> None:
    here = {key: str(place / value) if value and (place / value).exists() else value for key, value in settings.items()}
    with pytest.raises(error, match=message):
        train_join(recipe(place, **here), tmp_path)


def test_wrong_recipes_are_refused(place: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.folders|exactly one of folders"):
        recipe(place, data={"pairs": {"input": "a", "target": "b"}})
    with pytest.raises(RecipeError, match="did you mean leaf"):
        recipe(place, leav="stain")


def test_the_shipped_recipe_loads() -> None:
    shipped = load_recipe(Path(__file__).parents[2] / "recipes" / "tree" / "join.yaml", {"start": "mine.safetensors"})
    assert (shipped.start, shipped.pairs, shipped.leaf) == ("mine.safetensors", None, None)


def test_the_account_counts_what_was_sent_where(place: Path) -> None:
    network = opened(place / "stain.safetensors")
    router = present_router(network)
    points = torch.randn(6, 16)
    with torch.no_grad():  # a router that always chooses the new leaf at its finest level
        after = copy.deepcopy(router)
        mu, log_variance = after.mu(points).mean(0), after.sigma(points).mean(0)
        for module in (after.mu, after.sigma):
            module[-1].weight.zero_()
            module[-1].bias.fill_(1.0)
        after.lf_gate[0].weight.zero_()
        after.lf_gate[0].weight[STAIN] = 1
        after.layer_gate[0].weight.zero_()
        after.layer_gate[0].weight[2] = 1
    assert mu.shape == log_variance.shape
    experts = network.tree.experts
    mse = torch.full((6, experts), 0.01)
    mse[:, network.tree.leaves[STAIN].experts[2]] = 0.001
    zero = torch.zeros(6, 7)
    table = Outcomes(points, zero, zero.long(), mse, mse, mse, mse[:, 0])
    own = torch.tensor([True, True, False, False, False, False])
    found = judge(network, router, after, Samples(table, torch.zeros(6).long(), own, own), [STAIN])
    assert found["own"] == {"n": 2, "new": 1.0, "psnr": {"before": 20.0, "after": 30.0}}
    assert found["others"]["n"] == 4
    assert found["others"]["unchanged"] == 0.0


def test_centres_are_means_of_what_belongs_to_a_leaf() -> None:
    points = torch.tensor([[0.0, 2.0], [2.0, 0.0], [5.0, 5.0]])
    assert centres_of(points, torch.tensor([1, 1, 0]), 3).tolist() == [[5, 5], [1, 1], [0, 0]]
