"""Adapt the shipped network to damage it was not trained on, by every method, and write a JSON line for each run.

    python benchmarks/adaptation/study.py --data ROOT --output runs.jsonl [--only main] [--minutes 45]

ROOT has train/ (pictures to make pairs of) and test/cid22_validation and test/gb82 (to measure on). A run that is in
the file is not repeated, so the script goes on where it was stopped. Runs stand in the order of their worth: a run that
is stopped leaves whole tables. All runs have one budget: --steps steps of 4 patches of 48x48 px, on one thread, bf16
where the processor has it. Pairs are crops of 128x128 px, each from a picture of its own as long as there are enough
(394 here); a smaller set is the beginning of a larger one. A fifth of the pairs, at most 8, is held out and chooses
among the states of a run, as in `moir adapt`; the figures are measured on other pictures.
"""

import argparse
import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from damages import DAMAGES, damage
from torch import nn

from moir.adapted import save_adapter
from moir.adapters import attach, attached, parameter_count
from moir.metrics import psnr
from moir.models import load_model
from moir.networks.base import RestorationNetwork
from moir.picture import read
from moir.runtime.device import choose_precision
from moir.training.adaptation_data import HeldOut, Pair, Patches, split
from moir.training.adaptation_fit import fit
from moir.training.adaptation_settings import Adaptation
from moir.training.data import clean_pictures, generator_of
from moir.training.start import freeze

CROP, VIEW = 128, 192
REPLACED = ["stem.*", "encoder1.*", "up1.*", "down1.*", "decoder1.*", "head.*", "*.film.*"]
"""The weights of an expert of the shipped tree: those at half resolution and those that steer."""

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "adaptir": {},
    "lora": {"rank": 1},
    "adapter": {"rank": 10},
    "adaptformer": {"rank": 10},
    "ssf": {},
    "conv": {},
    "replaced": {},
}
"""Methods of the main table with the options that give about 26,000 parameters, where there are options."""

RATES = {"full": 4e-4, "replaced": 8e-4, "adaptformer": 1e-2}
"""Learning rates where :data:`RATE` does not suit: many parameters, or a change that is scaled down."""

RATE = 4e-3

SIZES: dict[str, list[dict[str, Any]]] = {
    "adaptir": [{"size": s} for s in (0.5, 1.0, 2.0, 3.0, 4.5)],
    "conv": [{"rank": r} for r in (2, 6, 12, 24, 36)],
    "lora": [{"rank": r} for r in (1, 2, 4, 6, 8)],
    "adaptformer": [{"rank": r} for r in (4, 8, 16, 40, 80)],
}
"""Five sizes of each method, from about 10,000 to 200,000 parameters."""


@dataclass(frozen=True)
class Run:
    """One run; its JSON is its name."""

    study: str
    damage: str
    pairs: int
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.0
    steps: int = 0
    seed: int = 0


def runs(steps: int) -> Iterator[Run]:
    """All runs, the most wanted first."""

    def main_run(name: str, pairs: int, method: str, seed: int = 0) -> Run:
        return Run("main", name, pairs, method, METHODS[method], RATES.get(method, RATE), steps, seed)

    for name in DAMAGES:
        for method in METHODS:
            yield main_run(name, 100, method)
    for pairs in (20, 500):
        for method in METHODS:
            yield main_run("salt-and-pepper", pairs, method)
    for method, sizes in SIZES.items():
        for options in sizes:
            yield Run("size", "salt-and-pepper", 100, method, options, RATES.get(method, RATE), steps)
    for method in METHODS:
        for factor in (0.3, 3):
            rate = factor * RATES.get(method, RATE)
            yield Run("rates", "salt-and-pepper", 100, method, METHODS[method], rate, steps)
    for seed in (1, 2):
        for method in ("full", "adaptir", "lora", "conv"):
            yield main_run("salt-and-pepper", 100, method, seed)
    for name in list(DAMAGES)[1:]:
        for pairs in (20, 500):
            for method in METHODS:
                yield main_run(name, pairs, method)


class Pictures:
    """Clean crops to make pairs of, and pictures to measure on; uint8."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._crops: dict[int, list[torch.Tensor]] = {}
        folders = [root / "test" / name for name in ("cid22_validation", "gb82")]
        paths = [path for folder in folders for path in clean_pictures([str(folder)])[:4]]
        self.test = torch.stack([_centre(_bytes(path), VIEW) for path in paths])

    def pairs(self, name: str, count: int, seed: int) -> list[Pair]:
        """The first ``count`` pairs of a damage."""
        paths = clean_pictures([str(self.root / "train")])
        order = torch.randperm(len(paths), generator=generator_of(seed, 0)).tolist()
        crops = self._crops.setdefault(seed, [])
        crops += [self._crop(paths[order[i % len(paths)]], seed, i) for i in range(len(crops), count)]
        return [Pair(f"{i:03d}", damage(crop, name, 1000 * seed + i), crop) for i, crop in enumerate(crops[:count])]

    def test_pairs(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, (8, 3, 192, 192), [0, 1]."""
        inputs = torch.stack([damage(picture, name, 10**6 + i) for i, picture in enumerate(self.test)])
        return inputs.float() / 255, self.test.float() / 255

    def _crop(self, path: Path, seed: int, number: int) -> torch.Tensor:
        picture, generator = _bytes(path), generator_of(seed, number, 1)
        top, left = (int(torch.randint(s - CROP + 1, (), generator=generator)) for s in picture.shape[-2:])
        return picture[:, top : top + CROP, left : left + CROP].clone()


def make(base: RestorationNetwork, method: str, options: dict[str, Any]) -> tuple[RestorationNetwork, nn.Module, int]:
    """A copy of the network, the part of it that is trained, and how many numbers that are."""
    network = deepcopy(base)
    if method in ("full", "replaced"):
        freeze(network.requires_grad_(True), ["*"] if method == "full" else REPLACED)
        return network, network, sum(p.numel() for p in network.parameters() if p.requires_grad)
    attach(network, method, "new", **options)
    adapters = nn.ModuleList([placement.adapter for placement in attached(network)["new"].placements])
    return network, adapters, parameter_count(network, "new")


@torch.no_grad()
def measure(network: RestorationNetwork, inputs: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """PSNR of each picture, dB, in the precision of training."""
    dtype = choose_precision(None, torch.device("cpu"))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        restored = [network(x[None]).float().clamp(0, 1) for x in inputs]
    return [float(psnr(y, target[None])) for y, target in zip(restored, targets, strict=True)]


def training_bytes(network: RestorationNetwork, part: nn.Module, x: torch.Tensor) -> int:
    """What a training step holds besides the weights: what the backward pass needs, gradients, and AdamW's moments."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    dtype = choose_precision(None, torch.device("cpu"))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32),
    ):
        result = network(x)  # its graph is alive while the bytes are added
    trained = sum(p.numel() * p.element_size() for p in part.parameters() if p.requires_grad)
    assert result.requires_grad
    return sum(kept.values()) + 3 * trained


def do(run: Run, base: RestorationNetwork, pictures: Pictures, adapters: Path) -> dict[str, Any]:
    """One run: adapt, measure on unseen pictures, and keep the adapter."""
    torch.manual_seed(run.seed)
    network, part, count = make(base, run.method, run.options)
    settings = Adaptation(
        steps=run.steps, batch=4, patch=48, learning_rate=run.rate, most_held_out=8, check_every=run.steps // 3,
        patience=100, seed=run.seed,
    )  # fmt: skip
    training, held = split(pictures.pairs(run.damage, run.pairs, run.seed), settings)
    patches, held_out = Patches(training, settings), HeldOut(held, run.seed)
    began, wall = time.process_time(), time.monotonic()
    dtype = choose_precision(None, torch.device("cpu"))
    fitted = fit(network, part, patches, held_out, settings, dtype=dtype)
    spent, waited = time.process_time() - began, time.monotonic() - wall
    found: dict[str, Any] = {
        "parameters": count,
        "held_out_before": fitted.before,
        "held_out_after": fitted.after,
        "best_step": fitted.best_step,
        "training_bytes": training_bytes(network, part, patches.batch(0)[0]),
        "cpu_seconds": round(spent, 2),
        "wall_seconds": round(waited, 2),
    }
    if run.study != "rates":  # nothing is chosen by the pictures that figures are measured on
        found["test"] = measure(network.eval(), *pictures.test_pairs(run.damage))
    if run.study == "main" and run.seed == 0 and "new" in attached(network):
        name = f"{run.damage}_{run.pairs}_{run.method}.safetensors"
        save_adapter(adapters / name, network, "new", "compact", overwrite=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--only", choices=("rates", "main", "size"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=45, help="of processor time; no run begins after them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = {json.dumps(r["run"]) for r in read_runs(options.output)}
    base, pictures = load_model("compact")[0], Pictures(options.data)
    for name in DAMAGES:  # what there is to gain
        before = Run("base", name, 0, "base")
        if json.dumps(asdict(before)) not in done:
            inputs, targets = pictures.test_pairs(name)
            write(
                options.output,
                before,
                {"input": psnr(inputs, targets).tolist(), "test": measure(base, inputs, targets)},
            )
    for run in runs(options.steps):
        if time.process_time() > 60 * options.minutes:
            break
        if json.dumps(asdict(run)) in done or options.only not in (None, run.study):
            continue
        write(options.output, run, do(run, base, pictures, options.output.parent / "adapters"))


def write(file: Path, run: Run, found: dict[str, Any]) -> None:
    """Add a line."""
    with file.open("a") as lines:
        lines.write(json.dumps({"run": asdict(run), **found}) + "\n")


def read_runs(file: Path) -> list[dict[str, Any]]:
    """The lines of a file; none if there is none."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _bytes(path: Path) -> torch.Tensor:
    return (read(path).rgb * 255).round().to(torch.uint8)


def _centre(picture: torch.Tensor, side: int) -> torch.Tensor:
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    return picture[:, top : top + side, left : left + side]


if __name__ == "__main__":
    main()
