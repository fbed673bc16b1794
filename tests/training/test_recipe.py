from pathlib import Path

import pytest
import torch

from moir.base.errors import RecipeError
from moir.training import load_recipe
from moir.training.loop import learning_rate
from moir.training.recipe import Optimiser

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
    hold = Optimiser(learning_rate=1.0, final_rate=0.0, warmup=10, schedule="hold", decay=0.5)
    assert [learning_rate(s, 100, hold) for s in (4, 10, 50, 75, 100)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    cosine = Optimiser(learning_rate=1.0, final_rate=0.1, warmup=0)
    rates = torch.tensor([learning_rate(s, 100, cosine) for s in range(101)])
    assert (rates.diff() <= 0).all()
    assert rates[-1] == pytest.approx(0.1)
