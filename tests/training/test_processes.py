"""Two processes on the CPU (gloo), started as ``accelerate launch`` starts one on each GPU."""

import os
import subprocess
import sys

import pytest
import torch
import yaml

from moir.checkpoints import read_tensors
from moir.training import load_recipe
from moir.training.loop import train

pytestmark = pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")

SCRIPT = """
import sys, torch
from moir.training import load_recipe
from moir.training.loop import train

torch.set_num_threads(1)
train(load_recipe(sys.argv[1]), sys.argv[2], device="cpu")
"""


@pytest.fixture
def in_two_processes(mixture_file, tmp_path):
    """Train the recipe with these settings in two processes, and return the folder of the run."""

    def run(settings):
        (tmp_path / "script.py").write_text(SCRIPT)
        recipe = load_recipe(mixture_file, settings)
        (tmp_path / "two.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        arguments = [tmp_path / "script.py", tmp_path / "two.yaml", tmp_path / "two"]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        done = subprocess.run(
            [*launcher, *map(str, arguments)], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return tmp_path / "two"

    return run


def test_two_processes_train_like_one_with_twice_the_batch(in_two_processes, mixture_file, tmp_path):
    settings = {"model.name": "test_restormer", "epochs": "0.5", "optimiser.clip": "0", "loss.balance": "0"}
    two = read_tensors(in_two_processes({**settings, "batch": "2"}) / "weights.safetensors")[0]
    one = read_tensors(
        train(load_recipe(mixture_file, {**settings, "batch": "4"}), tmp_path / "one", device="cpu")
    )[0]  # fmt: skip
    # Adam divides by the gradient's own size, so that rounding is visible; weights still agree closely.
    for name, value in two.items():
        assert torch.allclose(value, one[name], atol=2e-4), name


def test_experts_without_pictures_stop_no_process(in_two_processes):
    # 4 experts and one picture per process: in every block most experts get no picture.
    run = in_two_processes({"batch": "1", "epochs": "0.25"})
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
