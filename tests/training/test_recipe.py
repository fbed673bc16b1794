from pathlib import Path

import pytest
import torch

from moir.base.errors import RecipeError
from moir.training import load_recipe
from moir.training.recipe import Optimiser
from moir.training.schedule import Schedule, learning_rate, schedule_of

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path):
    assert load_recipe(path).name == path.stem


def test_settings_are_read_as_yaml(recipe_file):
    recipe = load_recipe(
        recipe_file, {"optimiser.learning_rate": "1e-5", "steps": "7", "loss.fft": "0.1", "model.options.width": "4"}
    )
    assert recipe.optimiser.learning_rate == 1e-5
    assert recipe.steps == 7
    assert recipe.loss.fft == 0.1
    assert recipe.model.options == {"width": 4}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stepz", "3", "did you mean steps"),
        ("optimiser.learning_rat", "1", "did you mean learning_rate"),
        ("data.damage.sinlge", "1", "did you mean single"),
        ("steps", "0", "steps"),
        ("optimiser.learning_rate", "fast", "learning_rate"),
        ("model.name", "compcat", "did you mean 'compact'"),
        ("data.damage.types", "{rian: 1}", "did you mean 'rain'"),
        ("data.damage.levels", "{light: 0}", "all be 0"),
        ("validation.damages", "[noize=3]", "did you mean 'noise'"),
        ("precision", "int8", "bf16"),
        ("steps.more", "1", "not a section"),
    ],
)
def test_a_wrong_key_or_value_is_refused(recipe_file, key, value, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, {key: value})


def test_unreadable_recipes(tmp_path):
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1, 2")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="mapping"):
        load_recipe(tmp_path / "list.yaml")


def test_schedules():
    hold = Optimiser(learning_rate=1.0, final_rate=0.0, schedule="hold", decay=0.5)
    lengths = Schedule(100, 10, 100)
    assert [learning_rate(s, lengths, hold) for s in (4, 10, 50, 75, 100)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    cosine = Optimiser(learning_rate=1.0, final_rate=0.1)
    rates = torch.tensor([learning_rate(s, Schedule(100, 0, 100), cosine) for s in range(101)])
    assert (rates.diff() <= 0).all()
    assert rates[-1] == pytest.approx(0.1)


def test_the_paper_s_recipes_really_apply_its_settings():
    folder = RECIPES[0].parent
    names = [f"moce_ir{size}_aio{tasks}" for size in ("", "_s") for tasks in (3, 5)]
    names += [f"moce_ir_s_cdd11_{part}" for part in ("single", "double", "triple", "all")]
    for name in names:
        recipe = load_recipe(folder / f"{name}.yaml")
        assert name == f"{recipe.model.name}_{recipe.data.mixture}"
        assert recipe.model.options == {"with_complexity": True}
        assert (recipe.loss.l1, recipe.loss.fft, recipe.loss.balance, recipe.loss.presence) == (1, 0.1, 0.01, 0)
        assert (recipe.data.patch, recipe.batch, recipe.epochs) == (128, 8, 120)
        lengths = schedule_of(recipe, 1000)
        assert lengths == Schedule(120_000, 15_000, 150_000)
        assert learning_rate(14_999, lengths, recipe.optimiser) == 2e-4
        assert 0.1e-4 < learning_rate(119_999, lengths, recipe.optimiser) < 0.4e-4
    fine = load_recipe(folder / "moce_ir_s_aio3.yaml", {"model.start": "x.ckpt", "optimiser.warmup_epochs": "1"})
    assert schedule_of(fine, 1000).warmup == 1000
    jittor = load_recipe(folder / "moce_ir_jittor_retraining.yaml")
    assert (jittor.batch, schedule_of(jittor, 100)) == (16, Schedule(4000, 400, 4000))


def test_a_recipe_may_extend_another(recipe_file):
    heir = recipe_file.parent / "heir.yaml"
    heir.write_text("extends: tiny.yaml\nname: heir\ndata: {patch: 48}\nsteps: 9\n")
    recipe, base = load_recipe(heir), load_recipe(recipe_file)
    assert (recipe.name, recipe.steps, recipe.data.patch) == ("heir", 9, 48)
    assert recipe.data.folders == base.data.folders
    assert recipe.optimiser == base.optimiser
    heir.write_text("extends: none.yaml")
    with pytest.raises(RecipeError, match=r"none\.yaml, which .*heir\.yaml extends"):
        load_recipe(heir)
    heir.write_text("extends: heir.yaml")
    with pytest.raises(RecipeError, match="in turn"):
        load_recipe(heir)
