import pytest
import yaml

from moir.picture import from_tensor, write
from moir.training import load_recipe


@pytest.fixture
def recipe_file(tmp_path, photograph):
    """A recipe that trains the tiny network on two small photographs, in a second."""
    for number in range(2):
        write(from_tensor(photograph[:, number * 90 : number * 90 + 90, :90]), tmp_path / "clean" / f"{number}.png")
        write(from_tensor(photograph[:, 100:164, number * 70 : number * 70 + 64]), tmp_path / "held" / f"{number}.png")
    content = {
        "name": "tiny",
        "model": {"name": "test_compact"},
        "data": {"folders": [str(tmp_path / "clean")], "patch": 32, "workers": 0},
        "steps": 6,
        "batch": 2,
        "precision": "no",
        "optimiser": {"learning_rate": 1e-3, "warmup": 2},
        "validation": {"folders": [str(tmp_path / "held")], "crop": 48, "every": 3, "damages": ["clean", "noise=25"]},
        "save_every": 3,
        "log_every": 1,
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)
