"""What routing gains: every expert on every picture, then every way of choosing one.

    python benchmarks/universal/routing.py RUN --data ROOT [--pictures 20] [--output FILE.md]

RUN is the folder of `moir train recipes/tree/all.yaml`; ROOT holds cid22_validation, whose pictures were neither
trained on nor used to calibrate. The settings are those of the UniRestorer paper (arXiv 2412.20157): seven single and
seven mixed degradations, in- and out-of-distribution, made by `moir degrade` with a fixed seed. Every expert restores
the centre of each picture once, with the decision on the whole; the ways of choosing are then compared on one table of
PSNRs, so they see the same pictures, the same noise and the same rounding (bf16 on a CPU).

Protocol: centre crop of 160 px, prediction clamped and not rounded, PSNR over RGB, mean over n pictures, dB.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moir import degrade
from moir.base.files import write_text
from moir.base.names import TYPES
from moir.datasets import find
from moir.degrade.pipeline import MIXES
from moir.models import load_model
from moir.training.tree.outcomes import Batch, Outcomes, measure
from moir.training.tree.recipe import RouterStage
from moir.training.tree.router import train_router
from moir.universal.clustering import Clustering, nearest
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.router import Route, Router
from moir.universal.tree import Tree

WHOLE = 384
"""Side of what the decision is made on, pixels: a centre crop of the picture, or all of it."""
CROP = 160
"""Side of what is restored and scored, pixels."""
RANGES = ("inside", "outside")


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    range: str
    group: str


SETTINGS = [
    Setting(name, where, group)
    for where in RANGES
    for group, names in (("single", TYPES), ("mixed", tuple(MIXES)))
    for name in names
]


def damaged(root: Path, setting: Setting, count: int) -> Iterator[Batch]:
    """The pictures of one setting."""
    found = find("cid22_validation", root)
    request = degrade.parse(f"{setting.name}={setting.range}")
    for number, pair in enumerate(found.pairs[:count]):
        target = _centre(found.load(pair).target, WHOLE)[None]
        seed = 1000 * SETTINGS.index(setting) + number
        records = request.sample(torch.Generator().manual_seed(seed))
        presence, degree = torch.zeros(1, len(TYPES)), torch.full((1, len(TYPES)), -1)
        for record in records:
            presence[0, TYPES.index(record.type)] = 1
        x = degrade.quantise(degrade.apply(target, [records]))
        yield {"input": x, "target": target, "presence": presence, "degree": degree}


@dataclass(frozen=True)
class Seen:
    """The pictures of one setting: what each expert makes of them, and the estimate's presence logits (N, 7)."""

    outcomes: Outcomes
    presence: torch.Tensor

    def psnr(self, expert: torch.Tensor) -> torch.Tensor:
        """(N,), of these experts, dB."""
        return self.outcomes.psnr.gather(1, expert[:, None])[:, 0]


Choice = Callable[[Seen, Route, Setting], torch.Tensor]
"""The PSNR, (N,), that a way of choosing reaches on the pictures of a setting."""


def ways(network: CompactUniRestorer) -> dict[str, Choice]:
    """Every way of choosing an expert, by its name."""
    tree, table = network.tree, network.tree.table()

    def at(expert: Callable[[Route], torch.Tensor]) -> Choice:
        return lambda seen, route, _: seen.psnr(expert(route))

    def auto(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        return seen.psnr(table[route.leaf, network.agreed_level(seen.presence, route.leaf, route.level)])

    def oracle(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        return seen.outcomes.psnr.amax(1)

    def random(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        return seen.outcomes.psnr[:, table].mean((1, 2))  # the expectation over a random leaf and a random level

    def instructed(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        leaf, level = told(tree, route, (setting.name,) if setting.group == "single" else MIXES[setting.name])
        return seen.psnr(table[leaf, level])

    return {
        "coarsest": at(lambda route: torch.zeros_like(route.leaf)),
        "by type": at(lambda route: table[route.leaf, torch.ones_like(route.leaf)]),
        "finest": at(lambda route: table[route.leaf, torch.full_like(route.leaf, len(tree.levels) - 1)]),
        "router alone": at(lambda route: table[route.leaf, route.level]),
        "auto": auto,
        "told": instructed,
        "random": random,
        "oracle": oracle,
    }


def told(tree: Tree, route: Route, types: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaf and level when the tree is pruned to these types, as in :meth:`CompactUniRestorer.instruct`."""
    mask = torch.tensor([not leaf.types or not set(leaf.types) <= set(types) for leaf in tree.leaves])
    if bool(mask.all()):
        return route.leaf, torch.zeros_like(route.level)
    leaf = route.leaf_logits.masked_fill(mask, -torch.inf).argmax(1)
    return leaf, route.level_logits.masked_fill(tree.level_mask(mask), -torch.inf).argmax(1)


def main() -> None:
    """Measure, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    network, _ = load_model(str(options.run / "weights.safetensors"))
    assert isinstance(network, CompactUniRestorer)
    kept = options.run / "routing"
    kept.mkdir(exist_ok=True)
    found: dict[Setting, Seen] = {}
    for setting in SETTINGS:
        path = kept / f"{setting.range}_{setting.name}_{options.pictures}.safetensors"
        pictures = damaged(options.data, setting, options.pictures)
        if not path.exists():
            print(setting.range, setting.name, flush=True)
            measure(network, pictures, CROP).save(path)
        elif Outcomes.load(path).changed(network):
            Outcomes.load(path).refreshed(network, pictures, CROP).save(path)
        found[setting] = Seen(
            Outcomes.load(path), presence_of(network, damaged(options.data, setting, options.pictures))
        )
    text = report(network, found, options.run, options.pictures)
    if options.output:
        write_text(options.output, text, overwrite=True)
    print(text)


@torch.inference_mode()
def presence_of(network: CompactUniRestorer, batches: Iterator[Batch]) -> torch.Tensor:
    """Calibrated presence logits, (N, 7)."""
    return torch.cat([network.extractor.estimate(network.extractor(batch["input"]))[0] for batch in batches])


def report(network: CompactUniRestorer, found: dict[Setting, Seen], run: Path, pictures: int) -> str:
    """The tables as Markdown."""
    choices = ways(network)
    router = _router_of(network)
    lines = [
        f"Protocol: {pictures} pictures of cid22_validation, decision on {WHOLE} px, centre {CROP} px scored, PSNR "
        "over RGB (dB), mean. `random` is the expectation over a random leaf and level; `oracle` takes the best expert "
        "of each picture, which nobody can know; `told` is the router with the tree pruned to the types that are "
        "there.",
        "",
    ]
    for where in RANGES:
        header = ["setting", "input", *choices]
        lines += [
            f"## {'In' if where == 'inside' else 'Out of'} distribution",
            "",
            _row(header),
            _row(["---"] * len(header)),
        ]
        sums: list[list[float]] = []
        for setting in (s for s in SETTINGS if s.range == where):
            seen = found[setting]
            route = router(seen.outcomes.points)
            before = float((-10 * seen.outcomes.before.log10()).mean())
            values = [before, *(float(choose(seen, route, setting).mean()) for choose in choices.values())]
            sums.append(values)
            lines.append(_row([setting.name, *(f"{value:.2f}" for value in values)]))
        for name, part in (("mean of 7 single", sums[:7]), ("mean of 7 mixed", sums[7:]), ("mean of 14", sums)):
            lines.append(_row([f"**{name}**", *(f"**{value:.2f}**" for value in np.mean(part, 0))]))
        lines.append("")
    lines += ["## Which losses the router needs", "", *_losses(network, found, run), ""]
    return "\n".join(lines)


AS_PUBLISHED = {"reconstruction": 1.0, "balance": 0.01, "leaf": 0.0, "level": 0.0, "regret": 0.0, "choice": 0.0}
LOSSES: dict[str, dict[str, float]] = {
    "equations 7 to 9 as published": AS_PUBLISHED,
    "equations 7 to 9, and the leaf by name of its group": {**AS_PUBLISHED, "leaf": 1.0},
    "leaf, and the level's cross-entropy": {"regret": 0.0, "uncertainty": 0.0, "choice": 0.0},
    "leaf, and the expected loss of PSNR": {"level": 0.0, "uncertainty": 0.0, "choice": 0.0},
    "leaf, level, expected loss": {"uncertainty": 0.0, "choice": 0.0},
    "leaf, level, expected loss, equation 7": {"choice": 0.0},
    "leaf and level (0.3 each), equation 7, expected loss against all experts (as shipped)": {
        "leaf": 0.3,
        "level": 0.3,
        "regret": 0.0,
    },
}


def _losses(network: CompactUniRestorer, found: dict[Setting, Seen], run: Path) -> list[str]:
    """Routers trained with parts of the loss on the table alone, each the mean of three seeds."""
    clustering = Clustering.load(run / "cluster" / "tree.json")
    outcomes = Outcomes.load(run / "router" / "outcomes.safetensors")
    leaf = torch.from_numpy(nearest(np.asarray(outcomes.points), clustering.centres))
    centres = torch.from_numpy(clustering.centres).float()
    table = network.tree.table()
    lines = [_row(["loss", *(f"{where}, router alone less coarsest" for where in RANGES)]), _row(["---"] * 3)]
    for name, changes in LOSSES.items():
        gains: dict[str, list[float]] = {where: [] for where in RANGES}
        for seed in range(3):
            stage = RouterStage(**changes)
            router = train_router(outcomes, network.tree, centres, leaf, stage, seed)
            for setting, seen in found.items():
                route = router(seen.outcomes.points)
                chosen = seen.psnr(table[route.leaf, route.level])
                gains[setting.range].append(float((chosen - seen.outcomes.psnr[:, 0]).mean()))
        lines.append(_row([name, *(f"{np.mean(gains[where]):+.3f}" for where in RANGES)]))
    return lines


def _router_of(network: CompactUniRestorer) -> Router:
    router = Router(network.extractor.features, len(network.tree.leaves), len(network.tree.levels))
    own = network.state_dict()
    router.load_state_dict({name: own[name] for name in router.state_dict()})
    return router.eval().requires_grad_(False)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _centre(x: torch.Tensor, side: int) -> torch.Tensor:
    height, width = (min(length, side) for length in x.shape[-2:])
    top, left = (x.shape[-2] - height) // 16 * 8, (x.shape[-1] - width) // 16 * 8
    return x[:, top : top + height, left : left + width]


if __name__ == "__main__":
    main()
