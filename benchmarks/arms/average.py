"""What the moving average of the weights is worth: a run's weights and their average on the same validation.

    python benchmarks/arms/average.py STATE.safetensors --recipe RECIPE.yaml --data ROOT

STATE is the `state.safetensors` of a run (or a copy from the middle of it), which holds both. Prints PSNR in dB on the
recipe's validation pictures, and writes a sheet of each beside the state.
"""

import argparse
import os
from pathlib import Path

import torch

from moir.checkpoints import read_tensors
from moir.models import create_model
from moir.training.reading import load_recipe
from moir.training.recipe import Recipe
from moir.training.validation import Validator


def main() -> None:
    """Validate both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", required=True, help="the folder that recipes call MOIR_DATA")
    options = parser.parse_args()
    os.environ["MOIR_DATA"] = options.data
    recipe = load_recipe(options.recipe)
    assert isinstance(recipe, Recipe)
    tensors, _ = read_tensors(options.state)
    validator = Validator(recipe.validation, recipe.data.folders, recipe.data.root, 1, recipe.data.told)
    for name, prefix in (("weights", "network."), ("average", "average.")):
        network = create_model(recipe.model.name, **recipe.model.options).eval()
        network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        scores = validator.run(network, torch.device("cpu"), options.state.with_suffix(f".{name}.png"))
        print(f"{name}: " + ", ".join(f"{spec} {score:.2f}" for spec, score in scores.items()))


if __name__ == "__main__":
    main()
