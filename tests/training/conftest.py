import pytest
import torch
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


@pytest.fixture
def data_folder(tmp_path):
    """Two pairs of every training set of MoCE-IR, in the published layout; an input is its target, inverted."""
    root = tmp_path / "data"
    generator = torch.Generator().manual_seed(0)

    def put(name, picture):
        write(from_tensor(picture), root / name)

    def pair(inputs, targets):
        clean = torch.randint(0, 256, (3, 40, 37), generator=generator) / 255
        put(targets, clean)
        put(inputs, 1 - clean)

    for number in "12":
        put(f"denoising/BSD400/{number}.png", torch.full((3, 48, 48), 0.5))
        put(f"denoising/WaterlooED/{number}.png", torch.full((3, 48, 48), 0.5))
        pair(f"deraining/RainTrainL/rainy/rain-{number}.png", f"deraining/RainTrainL/gt/norain-{number}.png")
        pair(f"dehazing/RESIDE/part1/000{number}_0.8_0.1.png", f"dehazing/RESIDE/clear/000{number}.png")
        crops = "deblurring/GoPro/crop/train"
        pair(f"{crops}/input_crops/{number}.png", f"{crops}/target_crops/{number}.png")
        pair(f"llie/LOLv1/Train/input/{number}.png", f"llie/LOLv1/Train/target/{number}.png")
        for part in ("train", "test"):
            clean = torch.randint(0, 256, (3, 40, 37), generator=generator) / 255
            put(f"cdd11/{part}/clear/{number}.png", clean)
            for kind in ("low", "haze", "rain", "snow"):
                put(f"cdd11/{part}/{kind}/{number}.png", 1 - clean)
    return root


@pytest.fixture
def mixture_file(data_folder, tmp_path):
    """A recipe that trains a tiny MoCE-IR on the single degradations of CDD11: 16 samples, 8 steps per epoch."""
    content = {
        "name": "mixture",
        "model": {"name": "test_moce_ir"},
        "data": {"mixture": "cdd11_single", "root": str(data_folder), "patch": 16, "workers": 0},
        "epochs": 0.75,
        "batch": 2,
        "precision": "no",
        "loss": {"fft": 0.1, "presence": 0, "degree": 0},
        "optimiser": {"learning_rate": 1e-3, "final_rate": 0, "warmup_epochs": 0.25, "schedule_epochs": 1.25},
        "save_every": 3,
        "log_every": 1,
    }
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
