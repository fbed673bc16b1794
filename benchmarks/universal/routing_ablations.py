"""The ablations of routing, on tables of outcomes alone: losses, levels, division."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from routing_pictures import RANGES, Seen, Setting
from routing_tables import agreed, header, router_of, row, told_place

from moir.base.names import DEGREES, TYPES
from moir.checkpoints import read_tensors, write_tensors
from moir.findings import SEEN
from moir.training.tree.cluster import REPRESENTATIONS, TREE, Represented
from moir.training.tree.outcomes import Outcomes
from moir.training.tree.recipe import RouterStage
from moir.training.tree.rejoin import BELONGING, OUTCOMES, centres_of
from moir.training.tree.router import train_router
from moir.universal.clustering import Clustering, nearest
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.pool import fingerprint
from moir.universal.router import Router
from moir.universal.tree import Tree

HARM = 1.0
"""dB below the coarsest expert from which a picture counts as harmed."""
AS_PUBLISHED = {"reconstruction": 1.0, "balance": 0.01, "leaf": 0.0, "level": 0.0, "regret": 0.0, "choice": 0.0}
LOSSES: dict[str, dict[str, float]] = {
    "equations 7 to 9 as published": AS_PUBLISHED,
    "equations 7 to 9, and the leaf by name of its group": {**AS_PUBLISHED, "leaf": 1.0},
    "leaf, and the level's cross-entropy": {"regret": 0.0, "uncertainty": 0.0, "choice": 0.0},
    "leaf, and the expected loss of PSNR": {"level": 0.0, "uncertainty": 0.0, "choice": 0.0},
    "leaf, level, expected loss": {"uncertainty": 0.0, "choice": 0.0},
    "leaf, level, expected loss, equation 7": {"choice": 0.0},
}
LEVELS = [
    ("all", "type"),
    ("all", "degree"),
    ("type", "degree"),
    ("type",),
    ("degree",),
    ("all", "type", "degree"),
]


@dataclass(frozen=True)
class Samples:
    """What the run's router was trained on.

    Attributes:
        outcomes: Of training pictures.
        leaf: (N,), the finest group of each.
        centres: (leaves, F), of the finest groups.
        more: Places and groups of the clustered pictures, from which the leaf gate learns too.
        kept: A folder for trained routers.
        seeds: Routers of each kind.
    """

    outcomes: Outcomes
    leaf: torch.Tensor
    centres: torch.Tensor
    more: tuple[torch.Tensor, torch.Tensor]
    kept: Path
    seeds: int

    @classmethod
    def of(cls, network: CompactUniRestorer, run: Path, seeds: int) -> "Samples":
        """Read them from the folder of the run: of a tree, or of its router alone (``recipes/tree/join.yaml``)."""
        kept = run / "routing" / "routers"
        kept.mkdir(parents=True, exist_ok=True)
        if (run / BELONGING).exists():
            outcomes, leaf = Outcomes.load(run / OUTCOMES), read_tensors(run / BELONGING)[0]["leaf"]
            centres = centres_of(outcomes.points, leaf, len(network.tree.leaves))
            return cls(outcomes, leaf, centres, (outcomes.points[:0], leaf[:0]), kept, seeds)
        clustered = Clustering.load(run / "cluster" / TREE).centres
        outcomes = Outcomes.load(run / "router" / OUTCOMES)
        represented = Represented(**read_tensors(run / "cluster" / REPRESENTATIONS)[0])
        places = network.extractor.place(represented.points)

        def nearest_leaf(points: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(nearest(np.asarray(points), clustered))

        more = (places, nearest_leaf(places))
        centres = torch.from_numpy(clustered).float()
        return cls(outcomes, nearest_leaf(outcomes.points), centres, more, kept, seeds)

    def routers(self, tree: Tree, stage: RouterStage) -> Iterator[Router]:
        """Routers trained anew, one per seed; those that were trained before on the same samples are read."""
        tensors = {
            "points": self.outcomes.points,
            "mse": self.outcomes.mse,
            "more": self.more[0],
            "table": tree.table(),
        }
        samples = fingerprint(tensors | {"centres": self.centres})
        losses = stage.model_dump_json(exclude={"sure", "sure_mixed"})  # these two are for later
        for seed in range(self.seeds):
            name = sha256(f"{samples} {losses} {seed}".encode()).hexdigest()[:16]
            path = self.kept / f"{name}.safetensors"
            if not path.exists():
                router = train_router(self.outcomes, tree, self.centres, self.leaf, stage, seed, self.more)
                write_tensors(path, router.state_dict())
            router = Router(self.centres.shape[1], len(tree.leaves), len(tree.levels))
            router.load_state_dict(read_tensors(path)[0])
            yield router.eval().requires_grad_(False)


def ablations(
    network: CompactUniRestorer, found: Mapping[Setting, Seen], run: Path, stage: RouterStage, seeds: int
) -> list[str]:
    """All of them, as lines of Markdown.

    Args:
        network: The assembled tree.
        found: The pictures of all settings.
        run: The folder of the run.
        stage: The router's section of the recipe.
        seeds: Routers of each kind, of whose gains the mean is taken.
    """
    samples = Samples.of(network, run, seeds)
    return [
        *("## Which losses the router needs", "", *_losses(network, found, samples, stage), ""),
        *("## Which levels the tree needs", "", *_levels(network, found, samples, stage), ""),
        *("## By clusters or by labels", "", *_division(network, found, samples), ""),
    ]


def _losses(
    network: CompactUniRestorer, found: Mapping[Setting, Seen], samples: Samples, stage: RouterStage
) -> list[str]:
    stages = {name: RouterStage(**changes) for name, changes in LOSSES.items()}
    stages["equation 7, and leaf, level and expected loss against all experts (the recipe's own weights)"] = stage
    lines = [
        f"The router alone less the coarsest expert, dB; routers trained anew, {samples.seeds} seed(s) each.",
        "",
        *header(["loss", *RANGES.values()]),
    ]
    for name, own in stages.items():
        gains = [_gain(found, network.tree, router) for router in samples.routers(network.tree, own)]
        lines.append(row([name, *(f"{gain:+.3f}" for gain in np.mean(gains, 0)[:, 0])]))
    return lines


def _levels(
    network: CompactUniRestorer, found: Mapping[Setting, Seen], samples: Samples, stage: RouterStage
) -> list[str]:
    lines = [
        "Routers trained anew with these levels alone and the recipe's losses; the router alone less the coarsest "
        f"expert, dB, and the share of pictures that lose more than {HARM:g} dB by it; {samples.seeds} seed(s) each.",
        "",
        *header(["levels", *(f"{what}, {where}" for where in RANGES.values() for what in ("gain", "harmed"))]),
    ]
    lines.append(row(["all (one expert: nothing to choose)", *(("0", "0") * len(RANGES))]))
    for levels in LEVELS:
        tree = with_levels(network.tree, levels)
        gains = np.mean([_gain(found, tree, router) for router in samples.routers(tree, stage)], 0)
        lines.append(
            row([", ".join(levels), *(text for gain, harm in gains for text in (f"{gain:+.3f}", f"{harm:.1%}"))])
        )
    return lines


def with_levels(tree: Tree, levels: Sequence[str]) -> Tree:
    """The same leaves and experts with some of the levels."""
    places = [tree.levels.index(level) for level in levels]
    leaves = (replace(leaf, experts=tuple(leaf.experts[place] for place in places)) for leaf in tree.leaves)
    return Tree(tuple(leaves), tuple(levels))


def _gain(found: Mapping[Setting, Seen], tree: Tree, router: Router) -> list[tuple[float, float]]:
    """For each range, what a router gains over the coarsest expert (dB), and the share of pictures that it harms."""
    table, out = tree.table(), []
    for where in RANGES:
        gains = []
        for setting, seen in found.items():
            if setting.range == where:
                route = router(seen.points)
                gains.append(seen.psnr(table[route.leaf, route.level]) - seen.outcomes.psnr[:, 0])
        gain = torch.cat(gains)
        out.append((float(gain.mean()), float((gain < -HARM).float().mean())))
    return out


def _division(network: CompactUniRestorer, found: Mapping[Setting, Seen], samples: Samples) -> list[str]:
    tree, table, router = network.tree, network.tree.table(), router_of(network)
    centres = samples.centres.numpy()

    def by_centre(seen: Seen, setting: Setting) -> torch.Tensor:
        return table[torch.from_numpy(nearest(np.asarray(seen.points), centres)), -1]

    def routed(seen: Seen, setting: Setting) -> torch.Tensor:
        route = router(seen.points)
        return table[route.leaf, route.level]

    def auto(seen: Seen, setting: Setting) -> torch.Tensor:
        route = agreed(network, seen, router(seen.points))
        return table[route.leaf, route.level]

    def labelled(seen: Seen, setting: Setting) -> torch.Tensor:
        return torch.tensor([expert_of(tree, types) for types, _ in _labels(seen)])

    def labelled_finely(seen: Seen, setting: Setting) -> torch.Tensor:
        return torch.tensor([expert_of(tree, types, degree) for types, degree in _labels(seen)])

    def known(seen: Seen, setting: Setting) -> torch.Tensor:
        return torch.full((len(seen.points),), expert_of(tree, setting.types))

    def instructed(seen: Seen, setting: Setting) -> torch.Tensor:
        route = router(seen.points)
        place = told_place(network, route, setting.types)
        return torch.zeros_like(route.leaf) if place is None else table[place]

    rows = {
        "clusters: the nearest centre, finest level": by_centre,
        "clusters: the router alone": routed,
        "clusters: auto (router and estimate agree)": auto,
        "labels: types as estimated": labelled,
        "labels: types and degree as estimated": labelled_finely,
        "labels: the types that are there (known)": known,
        "clusters: told the types that are there (known)": instructed,
    }
    parts = {"single": (True,), "mixed": (False,), "all": (True, False)}
    lines = [
        "The same experts, chosen by the clusters of representations or by label; gain over the coarsest expert, dB. A "
        f"type counts as there from a probability of {SEEN:g}. By label, one type goes to the expert of that type (or "
        "of its degree, where there is a leaf of it), several to the leaf of exactly these types or else to the "
        "coarsest expert, none at all is left as it is. The experts themselves were trained on clusters: only the "
        "choice is compared. The third extractor of the paper's ablation, DA-CLIP, cannot be had: its weights "
        "are not there.",
        "",
        *header(["division and choice", *(f"{part}, {where}" for where in RANGES.values() for part in parts)]),
    ]
    for name, choose in rows.items():
        gains = {s: float((seen.psnr(choose(seen, s)) - seen.outcomes.psnr[:, 0]).mean()) for s, seen in found.items()}
        means = [
            np.mean([gain for s, gain in gains.items() if s.range == where and s.is_single in kinds])
            for where in RANGES
            for kinds in parts.values()
        ]
        lines.append(row([name, *(f"{mean:+.2f}" for mean in means)]))
    return lines


def expert_of(tree: Tree, types: Sequence[str], degree: str | None = None) -> int:
    """The number of the expert that a label leads to: the manual division.

    Args:
        tree: The tree.
        types: What is there; nothing: a clean picture.
        degree: Of the one type; None: the expert of all its degrees.
    """
    alike = [leaf for leaf in tree.leaves if set(leaf.types) == set(types) and not leaf.unnamed]
    if not alike:
        return 0
    if len(types) != 1:
        return alike[0].experts[-1]
    of_degree = [leaf for leaf in alike if degree is not None and leaf.degree == degree]
    return of_degree[0].experts[-1] if of_degree else alike[0].experts[1]


def _labels(seen: Seen) -> Iterator[tuple[list[str], str | None]]:
    """Types, and the degree of a single one, as estimated."""
    for presence, degree in zip(torch.sigmoid(seen.presence), seen.degree.argmax(2), strict=True):
        places = [place for place in range(len(TYPES)) if presence[place] >= SEEN]
        yield [TYPES[place] for place in places], DEGREES[degree[places[0]]] if len(places) == 1 else None
