"""Caution: what is done to photographs that nothing is wrong with, and what is not done to those that are dark.

    python benchmarks/universal/caution.py --data ROOT [--model TREE] [--type lowlight] [--output F.md]

On every picture of cid22_validation, gb82, LIVE1 and CBSD68 below ROOT, none of which was trained on: its centre
of at most 320 px as it is, and damaged by `moir degrade` within the published range (one draw each, fixed
seeds), restored as a user would. PSNR over RGB against the photograph, at most 80 dB. Half of gb82 was used to
calibrate the estimate. Some photographs are hazy or dark by nature; they count as sound.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

import moir
from moir import degrade
from moir.base.files import write_text
from moir.base.names import TASK_OF_TYPE, TYPES
from moir.datasets import find
from moir.evaluation.report.tables import markdown_table
from moir.training.tree.outcomes import centre

SETS = ("cid22_validation", "gb82", "live1", "cbsd68")
SIDE = 320
MOST = 80.0
BINS = (0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 1.01)
"""Bounds of the probability."""
STEPS = (60.0, 50.0, 40.0, 30.0, 0.0)
"""Bounds of PSNR, dB, from above."""


@dataclass(frozen=True)
class Seen:
    """One picture: the probability of the type, the expert, and PSNR as it is, in auto mode, and told."""

    name: str
    probability: float
    expert: str
    before: float
    auto: float
    told: float


def photographs(root: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and picture, (3, H, W), of all sets; one that is not there is an error, since a part would pass for all."""
    for name in SETS:
        found = find(name, root, strict=False)
        for pair in found.pairs:
            yield f"{name}/{pair.name}", centre(found.load(pair).target[None], SIDE)[0]


def see(restorer: moir.Restorer, name: str, x: torch.Tensor, target: torch.Tensor, type_: str) -> Seen:
    """Restore a picture, blind and told."""

    def psnr(y: torch.Tensor) -> float:
        return min(MOST, float(-10 * (y - target).square().mean().log10()))

    auto = restorer(x)
    probability = {finding.type: finding.probability for finding in auto.estimate}[type_]
    told = restorer(x, task=TASK_OF_TYPE[type_]).tensor
    return Seen(name, probability, auto.expert, psnr(x), psnr(auto.tensor), psnr(told))


def mean(values: list[float]) -> str:
    """For tables."""
    return f"{sum(values) / len(values):.1f}" if values else ""


def by_probability(damaged: list[Seen], sound: list[Seen]) -> str:
    """What is gained on damaged and lost on sound pictures, by the probability of the damage."""
    rows = []
    for low, high in reversed(list(pairwise(BINS))):
        row = [f"{low:g} to {min(high, 1):g}"]
        for pictures in (damaged, sound):
            own = [seen for seen in pictures if low <= seen.probability < high]
            row += [
                str(len(own)),
                *(mean([getattr(seen, what) for seen in own]) for what in ("before", "auto", "told")),
            ]
        rows.append(row)
    return markdown_table(
        ["probability", "damaged", "as it is", "auto", "told", "sound", "as it is", "auto", "told"], rows
    )


def changed(sound: list[Seen]) -> list[str]:
    """How far sound pictures are from themselves after auto mode, and which were changed the most."""
    rows, upper = [], float("inf")
    for lower in STEPS:
        own = [seen for seen in sound if lower <= seen.auto < upper]
        experts = ", ".join(f"{name} {n}" for name, n in Counter(seen.expert for seen in own).most_common())
        rows.append(
            [
                f"{lower:g} dB and more" if upper == float("inf") else f"{lower:g} to {upper:g} dB",
                str(len(own)),
                experts,
            ]
        )
        upper = lower
    worst = sorted((seen for seen in sound if seen.auto < STEPS[2]), key=lambda seen: seen.auto)
    listed = "; ".join(f"{seen.name} {seen.auto:.1f} ({seen.expert})" for seen in worst)
    return [markdown_table(["to itself", "pictures", "restored by"], rows), "", f"Below {STEPS[2]:g} dB: {listed}."]


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--type", choices=TYPES, default="lowlight", help="the damage; default: %(default)s")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    restorer = moir.load(options.model)
    request = degrade.parse(f"{options.type}=inside")
    damaged, sound = [], []
    for number, (name, target) in enumerate(photographs(options.data)):
        records = request.sample(torch.Generator().manual_seed(9000 + number))
        x = degrade.quantise(degrade.apply(target[None], [records]))[0]
        damaged.append(see(restorer, name, x, target, options.type))
        sound.append(see(restorer, name, target, target, options.type))
    card = restorer.card
    files = [] if card is None else [card.sha256, *(part["sha256"] for part in card.parts.values())]
    version = ", ".join(digest[:8] for digest in files) or "none"
    before, auto, told = (mean([getattr(seen, what) for seen in damaged]) for what in ("before", "auto", "told"))
    lines = [
        "# Caution",
        "",
        f"Made by `python benchmarks/universal/caution.py --data ROOT --type {options.type}`, weights sha256 "
        f"`{version}`. {len(sound)} photographs of {', '.join(SETS)}, at most {SIDE} px, as they are and with "
        f"{options.type}=inside (one draw each); PSNR over RGB, at most {MOST:g} dB, mean.",
        "",
        f"## {options.type}: what is gained, and lost, by its probability",
        "",
        by_probability(damaged, sound),
        "",
        f"All damaged pictures: {before} dB as they are, {auto} in auto mode, {told} told.",
        "",
        "## Sound photographs",
        "",
        *changed(sound),
    ]
    text = "\n".join(lines)
    print(text)
    if options.output:
        write_text(options.output, text + "\n", overwrite=True)


if __name__ == "__main__":
    main()
