"""AdaptIR's published tasks: their data, their recipes, and the training of an adapter from one."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from moir.adapted import load_adapter, read_adapter_facts
from moir.base.errors import CheckpointError, RecipeError, TrainingError
from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.datasets import FolderMissingError, benchmarks, mixture
from moir.models import create_model, load_model
from moir.networks.adaptation_tasks import TASK_SCALES
from moir.networks.ipt import PATH_OF_TASK
from moir.picture import from_tensor, write
from moir.training import load_recipe
from moir.training.loop import train
from moir.training.pairs import open_pairs
from moir.training.recipe import Data
from moir.training.schedule import learning_rate, schedule_of

RECIPES = Path(__file__).parents[2] / "recipes"
CHECKPOINTS = {"IPT_pretrain.pt", "SRx2x3x4_EDTB_ImageNet200K.pth"}

pytestmark = pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")


@pytest.fixture
def task_folder(tmp_path):
    """Pictures of every training set of AdaptIR, in its own layout; larger ones repeat pixels of their inputs."""
    root = tmp_path / "data"
    generator = torch.Generator().manual_seed(0)

    def put(name, picture):
        write(from_tensor(picture), root / name)

    def noise(height, width):
        return torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255

    low = noise(20, 30)
    for place, name, ending in (("DIV2K/DIV2K_train", "0001", ".png"), ("Flickr2K/Flickr2K", "000001", ".png")):
        put(f"{place}_HR/{name}{ending}", F.interpolate(low, scale_factor=12, mode="nearest")[0])
        for s in (2, 3, 4):
            part = F.interpolate(low, scale_factor=12 // s, mode="nearest")[0]
            put(f"{place}_LR_bicubic/X{s}/{name}x{s}{ending}", part)
    put("Set5/HR/baby.png", F.interpolate(low, scale_factor=2, mode="nearest")[0])
    put("Set5/LR_bicubic/X2/babyx2.png", low[0])
    put("Rain100L/rainy/rain-001.png", low[0])
    put("Rain100L/norain-001.png", low[0])
    for number in "12":
        for place in ("BSD400", "WaterlooED"):
            put(f"{place}/{number}.png", F.interpolate(noise(5, 6), size=(60, 70), mode="bicubic").clamp(0, 1)[0])
        for letter in "LH":  # both halves in one folder, as the paper's archive has them
            clean = noise(52, 50)[0]
            put(f"RainTrain{letter}/norain-{number}.png", clean)
            put(f"RainTrain{letter}/rain-{number}.png", 1 - clean)
        clean = noise(52, 50)[0]
        put(f"LOLv1/Train/target/{number}.png", clean)
        put(f"LOLv1/Train/input/{number}.png", 1 - clean)
    return root


@pytest.mark.parametrize("task", TASK_SCALES)
def test_every_task_has_its_recipe_data_and_benchmarks(task, task_folder, monkeypatch):
    monkeypatch.setenv("MOIR_DATA", str(task_folder))
    recipe = load_recipe(RECIPES / f"adaptir_{task}.yaml")
    assert (recipe.model.name, recipe.model.options["task"], recipe.data.mixture) == ("ipt", task, task)
    assert recipe.model.adapter.method == "adaptir"
    scale = TASK_SCALES[task]
    assert [b.scale for name in recipe.validation.benchmarks for b in benchmarks(name)] == [scale]
    assert {b.name for b in benchmarks(task)} >= set(recipe.validation.benchmarks)  # the task's own benchmarks
    samples = open_pairs(recipe.data, recipe.seed)
    sample = samples[0]
    assert sample["input"].shape == (3, 48, 48)
    assert sample["target"].shape == (3, 48 * scale, 48 * scale)
    assert torch.equal(sample["input"], open_pairs(recipe.data, recipe.seed)[0]["input"])  # whatever came before


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_input_and_larger_target_show_the_same_place(task_folder, scale):
    samples = open_pairs(Data(mixture=f"sr_{scale}", root=str(task_folder), patch=16), seed=0)
    patches = [samples[number] for number in range(12)]
    for sample in patches:
        assert torch.equal(sample["target"][:, ::scale, ::scale], sample["input"])
    assert not torch.equal(patches[0]["input"], patches[1]["input"])


def test_damage_of_the_hybrid_tasks_is_that_of_the_published_program(task_folder):
    for task, low, high in (("lr4_noise30", 17, 22), ("lr4_jpeg30", 14, 40)):
        sample = open_pairs(Data(mixture=task, root=str(task_folder), patch=32), seed=0)[0]
        clean = sample["target"][:, ::4, ::4]
        levels = sample["input"] * 255
        assert torch.allclose(levels, levels.round(), atol=1e-3)  # stored in 8 bit
        decibels = -10 * (sample["input"] - clean).square().mean().log10()
        assert low < decibels < high
    assert mixture("lr4_jpeg30")[0].dataset == "div2k_train_x4"  # the published program looks for Xjpeg30 and fails


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    (tmp_path / "DIV2K").mkdir()
    recipe = load_recipe(RECIPES / "adaptir_sr_3.yaml", {"data.root": str(tmp_path)})
    with pytest.raises(FolderMissingError, match=r"sr_3 is not complete: div2k_train_x3.*flickr2k_x3"):
        open_pairs(recipe.data, 0)


def test_the_published_settings():
    for path in RECIPES.glob("adaptir_*.yaml"):
        recipe = load_recipe(path)
        settings = recipe.optimiser
        assert (recipe.data.patch, recipe.batch, recipe.epochs, recipe.seed) == (48, 16, 500, 0)
        assert (settings.name, settings.betas, settings.weight_decay) == ("adamw", (0.9, 0.999), 0.01)
        assert (settings.ema, settings.clip, recipe.precision) == (0, 0, "no")
        assert Path(recipe.model.start).name in CHECKPOINTS
        # 3450 pictures in batches of 16: 215 steps per epoch, the rate halved after 250, 400, 450 and 475 epochs.
        lengths = schedule_of(recipe, 3450 / 16)
        rates = [
            learning_rate(round(epoch * 3450 / 16) + 1, lengths, settings) for epoch in (0, 249, 250, 400, 450, 475)
        ]
        assert rates == pytest.approx([1e-4, 1e-4, 0.5e-4, 0.25e-4, 0.125e-4, 0.0625e-4])
    edt = load_recipe(RECIPES / "adaptir_edt_lr4_noise30.yaml")
    assert create_model("test_edt", task="lr4_noise30", heads=edt.model.options["heads"]).scale == 4


def test_noise_25_goes_through_the_head_of_the_nearest_level():
    assert PATH_OF_TASK["denoise_25"] == PATH_OF_TASK["denoise_30"]
    assert create_model("edt_denoise", task="denoise_25").head_name == "dn_g30"


@pytest.fixture
def adapter_file(tmp_path, task_folder):
    """A recipe that trains AdaptIR on a tiny IPT for x2, from weights that were saved before."""
    torch.manual_seed(1)
    options = {"task": "sr_2", "patch_size": 16, "patch_dim": 2}
    network = create_model("test_ipt", **options)
    weights = tmp_path / "base.safetensors"
    write_tensors(weights, network.state_dict())
    card = Card(name="base", model="test_ipt", options=network.options, licence="CC0", sha256=sha256_of(weights))
    card.write(weights.with_suffix(".json"))
    content = {
        "extends": str(RECIPES / "adaptir_sr_2.yaml"),
        "name": "tiny",
        "model": {"name": "test_ipt", "options": options, "start": str(weights)},
        "data": {"root": str(task_folder), "patch": 16, "workers": 0},
        "batch": 2,
        "epochs": 4,
        "optimiser": {"milestones": [2], "learning_rate": 1e-2},
        "validation": {"benchmarks": ["set5_sr_2", "rain100l"], "crop": 12, "every": 2},
        "save_every": 2,
        "log_every": 1,
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_only_the_adapter_is_trained_and_it_is_a_file_of_its_own(adapter_file, tmp_path):
    recipe = load_recipe(adapter_file, {"validation.benchmarks": "[set5_sr_2]"})
    seen = []
    path = train(recipe, tmp_path / "run", device="cpu", on_step=lambda p: seen.append(p.losses))
    assert (path, len(seen)) == (tmp_path / "run" / "adapter.safetensors", 4)
    assert all(list(losses) == ["l1"] for losses in seen)
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    base, _ = load_model(recipe.model.start)
    x = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        before = base(x)
        facts = load_adapter(base, path)  # refused if it were of other weights
        assert (base(x) - before).abs().max() > 1e-5
    assert facts == read_adapter_facts(path)
    assert (facts.method, facts.model, facts.model_options["task"]) == ("adaptir", "test_ipt", "sr_2")
    assert facts.notes["licence"] == "CC0"
    assert {credit["name"] for credit in facts.notes["training_data"]} == {"div2k_train_x2", "flickr2k_x2"}
    kept = read_tensors(tmp_path / "run" / "state.safetensors")[0]
    assert sum(value.numel() for value in kept.values()) < 6 * facts.parameters  # the adapter, its average, two moments
    assert (tmp_path / "run" / "validation" / "0000004.png").is_file()


def test_a_resumed_adapter_ends_where_an_unbroken_one_does(adapter_file, tmp_path):
    recipe = load_recipe(adapter_file, {"validation.benchmarks": "[]"})
    whole = read_tensors(train(recipe, tmp_path / "whole", device="cpu"))[0]
    train(load_recipe(adapter_file, {"validation.benchmarks": "[]", "epochs": "2"}), tmp_path / "two", device="cpu")
    resumed = read_tensors(train(recipe, tmp_path / "two", device="cpu"))[0]
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_benchmark_that_the_network_cannot_be_scored_on_is_refused(adapter_file, tmp_path):
    with pytest.raises(TrainingError, match=r"rain100l are 1 times larger.*pictures 2 times"):
        train(load_recipe(adapter_file), tmp_path / "run", device="cpu")


def test_weights_that_do_not_fit_are_refused(adapter_file, tmp_path):
    with pytest.raises(CheckpointError, match="does not fit"):
        train(load_recipe(adapter_file, {"model.options.n_feats": "16"}), tmp_path / "run", device="cpu")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(load_recipe(adapter_file, {"model.start": str(tmp_path / "x.pt")}), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.adapter.method", "adaptor", "did you mean 'adaptir' or 'adapter'"),
        ("model.adapter.hidden", "4", "unknown key"),
        ("model.start", "null", "adapter needs start"),
        ("model.train", "[tail.*]", "exclude each other"),
        ("optimiser.milestones", "[]", "go together"),
        ("optimiser.schedule", "cosine", "go together"),
        ("optimiser.milestones", "[3, 2]", "must ascend"),
    ],
)
def test_recipes_that_do_not_add_up_are_refused(adapter_file, key, value, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(adapter_file, {key: value})
