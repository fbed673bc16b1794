"""Make the samples that all arms are trained on, once: damaged patches and their clean originals, as 8-bit arrays.

    python benchmarks/arms/samples.py --data ROOT --output FOLDER [--count 22400] [--patch 64]

So every arm sees the same pictures in the same order, and none waits for them. The damage is noise, rain or haze, one
at a time: the usual first test of all-in-one restoration, and one that a short run gets somewhere on.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader, Subset

from moir.training.data import DamagedPatches, load_pictures
from moir.training.recipe import Damage, Data

TYPES = ("noise", "rain", "haze")
FIELDS = {"presence": (7,), "degree": (7,), "remove": (8,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--count", type=int, default=22400)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    damage = Damage(clean=0.04, single=1, named=0, types=dict.fromkeys(TYPES, 1.0))
    data = Data(folders=[f"{options.data}/train"], patch=options.patch, smallest_scale=0.15, instruct=0, damage=damage)
    patches = DamagedPatches(load_pictures(data.folders, data.patch), data, options.seed)
    shape = (options.count, 3, options.patch, options.patch)
    inputs, targets = (
        open_memmap(options.output / f"{name}.npy", "w+", np.uint8, shape) for name in ("input", "target")
    )
    others = {name: np.zeros((options.count, *size), np.float32) for name, size in FIELDS.items()}
    loader = DataLoader(Subset(patches, range(options.count)), batch_size=48, num_workers=options.workers)
    at = 0
    for batch in loader:
        rows = slice(at, at + len(batch["input"]))
        inputs[rows] = (batch["input"] * 255).round().byte().numpy()
        targets[rows] = (batch["target"] * 255).round().byte().numpy()
        for name, values in others.items():
            values[rows] = batch[name].numpy()
        at = rows.stop
    np.savez(options.output / "labels.npz", **others)
    print(f"{at} samples of {options.patch}x{options.patch} in {options.output}")


if __name__ == "__main__":
    main()
