"""UniRestorer's published training, in all its stages, on tiny networks."""

import json
import math

import pytest
import torch
import yaml

import moir
from moir.base.errors import CheckpointError, InvalidValueError, OutputExistsError, RecipeError, TrainingError
from moir.checkpoints import read_tensors, write_tensors
from moir.picture import from_tensor, write
from moir.training import load_recipe
from moir.training.state import alone_in
from moir.training.universal.controller import train_controller
from moir.training.universal.represent import read_representations
from moir.universal.clustering import Clustering
from moir.universal.daclip import DaClip
from moir.universal.daclip_weights import read_controller
from moir.universal.joining import join
from moir.universal.opening import open_unirestorer

SMALL = {"name": "test_restormer", "options": {"dim": 4, "heads": [1, 1, 1, 1]}}
EXTRACTOR = {"features": 16, "side": 64, "width": 16, "layers": 1}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two small pictures with structure."""
    folder = tmp_path_factory.mktemp("clean")
    x = torch.linspace(0, 1, 72)
    for number in (1, 2):
        waves = 0.5 + 0.4 * torch.sin(20 * number * (x[:, None] + x[None] ** 2))
        write(from_tensor(torch.stack([waves, waves.T, x.expand(72, 72)])), folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def recipe_file(photographs, tmp_path_factory):
    content = {
        "kind": "unirestorer",
        "name": "tiny",
        "data": {
            "folders": [str(photographs)],
            "workers": 0,
            "settings": ["noise=50", "rain=heavy", "lowlight=light", "lowlight=heavy"],
        },
        "extractor": {"options": EXTRACTOR, "batch": 10},
        "cluster": {"samples": 24, "patch": 48, "groups": [2, 3]},
        "experts": {
            "model": SMALL,
            "types": {"lowlight": {"name": "test_retinexformer"}},
            "steps": 2,
            "batch": 2,
            "patch": 16,
        },
        "router": {"steps": 5, "batch": 4, "patch": 48, "learning_rate": 1e-3, "resident": 2, "held_out": 12},
        "save_every": 2,
        "log_every": 1,
    }
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def run(recipe_file, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    assert load_recipe(recipe_file).run(folder, device="cpu") == folder / "unirestorer.safetensors"
    return folder


def test_a_run_leaves_a_network_that_loads_and_pictures_to_look_at(run):
    restorer = moir.load(run / "unirestorer.safetensors", device="cpu")
    tree = restorer.engine.network.tree
    assert tree.levels == ("all", "type", "degree")
    assert [len({row[level] for row in tree.rows}) for level in range(3)] == [1, 2, 3]
    result = restorer(torch.rand(3, 40, 33))
    assert result.tensor.shape == (3, 40, 33)
    assert result.granularity in tree.levels
    for name in ("embedding.png", "tree.png", "members.png", "router/confusion.png", "router/usage.png",
                 "router/granularity.png", "router/curves.png", "experts/00/curves.png"):  # fmt: skip
        assert (run / name).stat().st_size > 2000, name
    account = json.loads((run / "router" / "account.json").read_text())
    assert sum(account["levels"].values()) == pytest.approx(1)
    assert sum(account["experts"].values()) == pytest.approx(1)
    lines = (run / "tree.txt").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].strip().startswith("0 all: 24 pictures")


def test_the_router_is_saved_without_the_experts(run):
    for name in ("unirestorer.safetensors", "router/state.safetensors"):
        names = read_tensors(run / name)[0]
        assert not [n for n in names if "_experts." in n], name
        assert any("lf_gate.0.weight" in n for n in names)
    moved = run.parent / "moved"
    run.rename(moved)  # experts are referred to relative to the file
    try:
        assert open_unirestorer(moved / "unirestorer.safetensors").experts[0](torch.rand(1, 3, 16, 16)).shape[1] == 3
    finally:
        moved.rename(run)


def test_the_router_learns_the_groups_and_only_the_router_changes(run):
    start, _ = read_tensors(run / "router" / "start.safetensors")
    end, _ = read_tensors(run / "unirestorer.safetensors")
    assert torch.equal(start["daclip_model.visual_control.proj"], end["daclip_model.visual_control.proj"])
    changed = {name.split(".")[0] for name, value in end.items() if not torch.equal(value, start[name])}
    assert changed == {"mu", "sigma", "lf_gate", "layer_gate"}
    lines = (run / "router" / "log.jsonl").read_text().splitlines()
    assert {"l1", "uncertainty", "balance"} <= set(json.loads(lines[0]))


def test_an_expert_of_one_type_has_the_network_of_that_type(run):
    tree = Clustering.load(run / "clustering.json").tree
    sources = open_unirestorer(run / "unirestorer.safetensors").experts[0].pool.found
    for number in range(tree.experts):
        only_dark = {leaf.types for leaf in tree.members(number)} == {("lowlight",)}
        assert sources[number].model == ("test_retinexformer" if only_dark else "test_restormer")
    assert {source.model for source in sources} == {"test_restormer", "test_retinexformer"}


def test_a_run_that_was_killed_twice_ends_where_an_unbroken_one_does(run, recipe_file, tmp_path):
    class KilledError(Exception):
        pass

    def killer(wanted):
        seen = []

        def kill(progress):
            seen.append(progress.steps)
            if seen.count(wanted) == 3:
                raise KilledError

        return kill

    recipe = load_recipe(recipe_file)
    with pytest.raises(KilledError):
        recipe.run(tmp_path / "run", device="cpu", on_step=killer(2))  # in the second expert
    sorted((tmp_path / "run" / "representations").glob("*"))[1].unlink()  # as if that had not been finished
    with pytest.raises(KilledError):
        recipe.run(tmp_path / "run", device="cpu", on_step=killer(5))  # in the router, between two states
    result = recipe.run(tmp_path / "run", device="cpu")
    files = ["unirestorer.safetensors", *(f"experts/{number:02d}/weights.safetensors" for number in range(6))]
    assert result == tmp_path / "run" / files[0]
    for file in files:
        whole, broken = read_tensors(run / file)[0], read_tensors(tmp_path / "run" / file)[0]
        assert set(whole) == set(broken)
        assert not [name for name in whole if not torch.equal(whole[name], broken[name])], file


def test_representations_keep_what_was_done(run):
    found = read_representations(run)
    assert found.points.shape == (24, 16)
    kinds = {(label.types, label.degree) for label in found.labels}
    assert kinds == {
        (("noise",), "heavy"), (("rain",), "heavy"), (("lowlight",), "light"), (("lowlight",), "heavy"),
    }  # fmt: skip
    with pytest.raises(TrainingError, match=r"cluster.samples is 99"):
        read_representations(run, 99)


def test_runs_in_one_folder_take_turns_but_for_single_experts(run, recipe_file):
    with alone_in(run):
        with pytest.raises(OutputExistsError, match="another run is at work"):
            load_recipe(recipe_file, {"stage": "cluster"}).run(run, device="cpu")
        with pytest.raises(InvalidValueError, match="experts 0 to 5"):  # it was let in
            load_recipe(recipe_file, {"stage": "experts", "expert": "6"}).run(run, device="cpu")


def test_stages_say_what_is_missing(run, recipe_file, tmp_path):
    for stage, message in (("cluster", "'representations' first"), ("router", "'cluster' first")):
        with pytest.raises(TrainingError, match=message):
            load_recipe(recipe_file, {"stage": stage}).run(tmp_path, device="cpu")
    with pytest.raises(TrainingError, match=r"has \[2, 3\] groups, the recipe asks for \[2, 4\]"):
        load_recipe(recipe_file, {"stage": "cluster", "cluster.groups": "[2, 4]"}).run(run, device="cpu")
    with pytest.raises(InvalidValueError, match="experts 0 to 5"):
        load_recipe(recipe_file, {"stage": "experts", "expert": "6"}).run(run, device="cpu")
    with pytest.raises(CheckpointError, match="there is no weights file"):
        load_recipe(recipe_file, {"extractor.weights": str(tmp_path / "none.safetensors")}).run(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expert": "1"}, "expert is for the stage 'experts'"),
        ({"start": "pool.safetensors"}, "start is for the stage 'router'"),
        ({"extractor.options": "{}"}, "extractor.weights"),
        ({"data.damage": "{gate: 0.5}"}, "one of the two"),
        ({"data.settings": "[rian=heavy]"}, "did you mean 'rain'"),
        ({"cluster.gruops": "[2]"}, "did you mean groups"),
        ({"kind": "unirestore"}, "did you mean 'unirestorer'"),
    ],
)
def test_wrong_recipes_are_named(recipe_file, settings, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, settings)


def test_a_router_is_trained_again_after_a_network_joined(run, recipe_file, tmp_path):
    joined = join(run / "unirestorer.safetensors", "stain", "compact", tmp_path / "pool.safetensors", types=["rain"])
    assert joined.is_new
    settings = {"stage": "router", "start": str(joined.path), "router.steps": "2", "cluster.samples": "20"}
    again = load_recipe(recipe_file, settings).run(tmp_path / "run", device="cpu")
    network = open_unirestorer(again)
    assert len(network.tree.leaves) == 4
    assert network.experts[joined.expert].pool.found[joined.expert].model == "compact"
    centres = read_tensors(again)[0]["pool.centres"]
    assert centres.shape == (4, 16)
    assert centres.isfinite().all()
    assert torch.equal(centres[:3], read_tensors(run / "unirestorer.safetensors")[0]["pool.centres"])


# -- the extractor -------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    """A tiny CLIP under OpenCLIP's names, and a vocabulary."""
    torch.manual_seed(0)
    network = DaClip(**EXTRACTOR, text_width=16, text_layers=1, text_context=24, vocabulary=600)
    write_tensors(tmp_path / "clip.safetensors", network.clip.state_dict())
    words = ["r a", "ra i", "n o", "no i", "l a", "la r", "g e</w>"]
    (tmp_path / "words.txt").write_text("#version: 0.2\n" + "\n".join(words) + "\n")
    return tmp_path


@pytest.fixture
def controller_file(clip, photographs):
    content = {
        "kind": "daclip",
        "name": "controller",
        "clip": {"weights": str(clip / "clip.safetensors"), "vocabulary": str(clip / "words.txt")},
        "data": {"folders": [str(photographs)], "workers": 0, "settings": ["noise=heavy", "rain=heavy", "haze=light"]},
        "steps": 6,
        "batch": 4,
        "learning_rate": 1e-3,
        "warmup": 2,
        "precision": "no",
        "save_every": 2,
        "log_every": 1,
    }
    path = clip / "controller.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def _short_account(monkeypatch):
    monkeypatch.setattr("moir.training.universal.controller.HELD_OUT", 12)


def test_the_controller_is_trained_and_only_it(controller_file, clip, tmp_path):
    result = load_recipe(controller_file).run(tmp_path / "run", device="cpu")
    trained, before = read_controller(result), read_tensors(clip / "clip.safetensors")[0]
    assert not torch.equal(trained.visual_control.conv1.weight, before["visual.conv1.weight"])
    zero = trained.visual_control.transformer.zero_modules.state_dict()
    assert not any(value.any() for value in zero.values())
    state = read_tensors(tmp_path / "run" / "state.safetensors")[0]
    assert not [name for name in state if "clip" in name]  # the frozen towers are not in it
    account = json.loads((tmp_path / "run" / "account.json").read_text())
    assert account["pictures"] == 12
    assert 0 <= account["types_right"] <= 1
    assert (tmp_path / "run" / "confusion.png").exists()


def test_the_controller_resumes_exactly_and_its_scale_is_bounded(controller_file, tmp_path):
    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.step == 5:
            raise KilledError

    recipe = load_recipe(controller_file)
    whole = read_tensors(train_controller(recipe, tmp_path / "whole", device="cpu"))
    with pytest.raises(KilledError):
        train_controller(recipe, tmp_path / "broken", device="cpu", on_step=kill)
    steps = []
    resumed = train_controller(recipe, tmp_path / "broken", device="cpu", on_step=lambda p: steps.append(p.step))
    assert steps == [5, 6]
    broken = read_tensors(resumed)
    assert all(torch.equal(value, broken[0][name]) for name, value in whole[0].items())
    assert whole[1] == broken[1]
    assert 0 <= whole[1]["logit_scale"] <= math.log(100) + 1e-3


def test_a_table_of_damaged_pictures_is_read(controller_file, photographs, tmp_path):
    table = tmp_path / "train.tsv"
    table.write_text("filepath\ttitle\n1.png\ta wave with large rain\n2.png\tanother\n")
    settings = {"data.folders": "[]", "table.file": str(table), "table.root": str(photographs), "steps": "1"}
    result = load_recipe(controller_file, settings).run(tmp_path / "run", device="cpu")
    assert read_controller(result).features == 16
    table.write_text("filepath\ttitle\nnone.png\tx\n")
    with pytest.raises(TrainingError, match="pictures that are not there"):
        load_recipe(controller_file, settings).run(tmp_path / "other", device="cpu")
    table.write_text("filepath,title\n1.png,x\n")
    with pytest.raises(TrainingError, match="no column 'filepath'"):
        load_recipe(controller_file, settings).run(tmp_path / "other", device="cpu")


def test_clip_files_that_do_not_fit_are_named(controller_file, tmp_path):
    with pytest.raises(CheckpointError, match="it comes with CLIP"):
        load_recipe(controller_file, {"clip.vocabulary": str(tmp_path / "none")}).run(tmp_path, device="cpu")
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="neither CLIP"):
        load_recipe(controller_file, {"clip.weights": str(tmp_path / "other.safetensors")}).run(tmp_path, device="cpu")
