"""How long a training step takes, against the straightforward loop; and whether both learn alike.

    python benchmarks/speed/training.py step    [--model moce_ir_s] [--patch 64] [--batch 2] [--repeats 3]
    python benchmarks/speed/training.py samples [--pictures FOLDER] [--patch 128] [--count 200]
    python benchmarks/speed/training.py curves  --output FOLDER [--steps 40]

The straightforward loop is what one would write first: float32, channels first, samples damaged one by one in the main
process, AdamW without its multi-tensor forms, every loss read at once. ``step`` adds one thing after the other to it,
on one batch, in turns. Times are seconds of processor time of one thread, which other work on the machine disturbs less
than the clock on the wall; ``--wall`` takes that clock, with ``--threads`` threads (for an idle machine, and for GPUs).
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from skimage import data as photographs
from torch import nn

from moir import degrade
from moir.models import create_model
from moir.networks.base import RestorationNetwork
from moir.picture import from_tensor, write
from moir.training.data import DamagedPatches, generator_of, load_pictures
from moir.training.faster import use_faster_forms
from moir.training.loop import train
from moir.training.losses import terms
from moir.training.optimisers import make_optimiser
from moir.training.recipe import Recipe

BUNDLED = ("astronaut", "coffee", "rocket", "immunohistochemistry", "chelsea")
"""Photographs that come with scikit-image, for when no folder is given."""


def recipe_of(options: argparse.Namespace, folder: str, precision: str, speed: dict[str, bool]) -> Recipe:
    """The same run, in one precision and with these ways to be faster."""
    return Recipe.model_validate(
        {
            "name": "speed",
            "model": {"name": options.model},
            "data": {"folders": [folder], "patch": options.patch, "workers": 0, "instruct": 0},
            "steps": options.steps,
            "batch": options.batch,
            "precision": precision,
            "optimiser": {"learning_rate": 5e-4, "warmup": 5, "schedule": "hold", "decay": 0.01},
            "speed": speed,
            "save_every": options.steps,
            "log_every": 1,
        }
    )


class Straightforward:
    """The yardstick: a loop as one would write it first."""

    def __init__(self, recipe: Recipe, dataset: DamagedPatches) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.dataset = recipe, dataset
        self.network = create_model(recipe.model.name, **recipe.model.options).train()
        settings = recipe.optimiser
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, settings.betas,
            weight_decay=settings.weight_decay, foreach=False,
        )  # fmt: skip

    def samples(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of a step, one sample after the other."""
        drawn = [self.dataset[step * self.recipe.batch + i] for i in range(self.recipe.batch)]
        return {key: torch.stack([sample[key] for sample in drawn]) for key in drawn[0]}

    def step(self, step: int, sample: dict[str, torch.Tensor]) -> dict[str, float]:
        """Forward, backward, update; the terms of the loss."""
        settings = self.recipe.optimiser
        torch.manual_seed(generator_of(self.recipe.seed, step, 0, 0).initial_seed())  # routing noise, as in the project
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1, (step + 1) / (settings.warmup or 1))
        context = dict(self.network.analyse(sample["input"])) if self.network.estimates else None
        output = self.network(sample["input"], context)
        found = terms(self.network, output, context or {}, sample, self.recipe.loss)
        losses = {name: term.item() for name, term in found.items()}
        self.optimiser.zero_grad()
        torch.stack(list(found.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip, foreach=False)
        self.optimiser.step()
        return losses


def arm(network: RestorationNetwork, recipe: Recipe, half: bool, sample: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One training step of the project's loop, without the loop around it."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(network, recipe.optimiser, fused=recipe.speed.fused_optimiser)
    if recipe.speed.faster_forms:
        use_faster_forms(network)
    x = sample["input"].contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            context = dict(network.analyse(x)) if network.estimates else None
            output = network(x, context)
            found = terms(network, output.float(), context or {}, sample, recipe.loss)
        torch.stack(list(found.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), recipe.optimiser.clip)
        optimiser.step()
        optimiser.zero_grad()

    return step


ARMS = (
    ("channels-last", False, {}),
    ("channels-last, bf16: the loop's default", True, {}),
    ("float32, faster_forms", False, {"faster_forms": True}),
    ("bf16, faster_forms", True, {"faster_forms": True}),
    ("bf16, faster_forms, fused_optimiser", True, {"faster_forms": True, "fused_optimiser": True}),
)


def measure_steps(options: argparse.Namespace, folder: str) -> Iterator[dict[str, object]]:
    """A row for each arm: seconds per step on one batch, and how many times faster than the yardstick."""
    plain = recipe_of(options, folder, "no", {})
    dataset = DamagedPatches(load_pictures([folder], options.patch), plain.data, plain.seed)
    yardstick = Straightforward(plain, dataset)
    sample = yardstick.samples(0)
    runs: dict[str, Callable[[], object]] = {"straightforward": lambda: yardstick.step(0, sample)}
    for name, half, speed in ARMS:
        if options.only and name not in options.only:
            continue
        torch.manual_seed(plain.seed)
        network = create_model(options.model).train()
        runs[name] = arm(network, recipe_of(options, folder, "no", speed), half, sample)
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(options.repeats + 1):
        for name, run in runs.items():
            began = options.clock()
            run()
            if turn:  # the first one warms up
                times[name].append(options.clock() - began)
    base = min(times["straightforward"])
    for name, taken in times.items():
        yield {"arm": name, "min_s": round(min(taken), 3), "median_s": round(statistics.median(taken), 3),
               "ratio": round(base / min(taken), 2)}  # fmt: skip


def measure_samples(options: argparse.Namespace, folder: str) -> Iterator[dict[str, object]]:
    """Milliseconds per sample, and how much of them each degradation takes."""
    recipe = recipe_of(options, folder, "no", {})
    began = options.clock()
    pictures = load_pictures([folder], options.patch)
    yield {"part": "decode all pictures once", "seconds": round(options.clock() - began, 2), "pictures": len(pictures),
           "megabytes": round(sum(p.numel() for p in pictures) / 2**20)}  # fmt: skip
    dataset = DamagedPatches(pictures, recipe.data, recipe.seed)
    bare = DamagedPatches(pictures, recipe.data.model_copy(update={"device_degradation": True}), recipe.seed)
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(options.count):
        for name, source in (("whole sample", dataset), ("patch and parameters", bare)):
            began = options.clock()
            source[number]
            taken[name].append(options.clock() - began)
        sample = bare[number]
        for record in sample["records"][0]:
            began = options.clock()
            degrade.apply(sample["clean"][None], [[record]])
            taken[f"{record.type} {record.kind}"].append(options.clock() - began)
    for name, times in sorted(taken.items(), key=lambda item: -sum(item[1])):
        yield {"part": name, "n": len(times), "mean_ms": round(1e3 * statistics.mean(times), 2),
               "share": round(sum(times) / sum(taken["whole sample"]), 2)}  # fmt: skip


def measure_curves(options: argparse.Namespace, folder: str) -> Iterator[dict[str, object]]:
    """Train twice on the same samples, plot both curves, and compare the time of the whole loops."""
    out = Path(options.output)
    out.mkdir(parents=True, exist_ok=True)
    fast = recipe_of(options, folder, "bf16", {"faster_forms": True, "fused_optimiser": True})
    plain = recipe_of(options, folder, "no", {})
    curves: dict[str, list[float]] = {"straightforward": [], "moir": []}
    seconds: dict[str, list[float]] = {"straightforward": [], "moir": []}
    yardstick = Straightforward(plain, DamagedPatches(load_pictures([folder], options.patch), plain.data, plain.seed))
    clock = options.clock()
    for step in range(options.steps):
        curves["straightforward"].append(yardstick.step(step, yardstick.samples(step))["l1"])
        seconds["straightforward"].append(options.clock() - clock)
        clock = options.clock()

    def note(progress: object) -> None:
        nonlocal clock
        curves["moir"].append(progress.losses["l1"])  # type: ignore[attr-defined]
        seconds["moir"].append(options.clock() - clock)
        clock = options.clock()

    train(fast, out / "run", device="cpu", on_step=note)
    (out / "curves.json").write_text(json.dumps({"l1": curves, "seconds": seconds}))
    draw(curves, seconds, out / "curves.png")
    ones, twos = (torch.tensor(curve) for curve in curves.values())
    yield {"arm": "curves", "largest difference": (ones - twos).abs().max().item(),
           "mean l1 of the last half": {n: statistics.mean(c[len(c) // 2 :]) for n, c in curves.items()},
           "median_s": {name: round(statistics.median(s[1:]), 3) for name, s in seconds.items()},
           "ratio": round(statistics.median(seconds["straightforward"]) / statistics.median(seconds["moir"]), 2),
           }  # fmt: skip


def draw(curves: dict[str, list[float]], seconds: dict[str, list[float]], path: Path) -> None:
    """Both curves against the step, and against the time they took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, style in (("straightforward", "C0-"), ("moir", "C1--")):
        left.plot(range(1, len(curves[name]) + 1), curves[name], style, label=name)
        right.plot(torch.tensor(seconds[name]).cumsum(0), curves[name], style, label=name)
    left.set(xlabel="step", ylabel="L1")
    right.set(xlabel="seconds of processor time")
    left.legend()
    figure.savefig(path, dpi=100)


def bundled(folder: Path) -> str:
    """Write the bundled photographs into a folder, once."""
    for name in BUNDLED:
        if not (folder / f"{name}.png").exists():
            picture = torch.from_numpy(getattr(photographs, name)()).permute(2, 0, 1).float() / 255
            write(from_tensor(picture), folder / f"{name}.png")
    return str(folder)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "samples", "curves"])
    parser.add_argument("--model", default="moce_ir_s")
    parser.add_argument("--pictures", help="folder of clean pictures; default: those of scikit-image")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=[name for name, *_ in ARMS], help="arms beside the yardstick")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--output", default="runs/training_speed")
    options = parser.parse_args()
    options.clock = time.perf_counter if options.wall else time.process_time
    torch.set_num_threads(options.threads)
    folder = options.pictures or bundled(Path(options.output) / "pictures")
    measure = {"step": measure_steps, "samples": measure_samples, "curves": measure_curves}[options.what]
    for row in measure(options, folder):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
