"""The router learns anew after an expert joined: without the tree's own training run, from the weights alone.

Everything else is frozen. Most samples are damaged as when the tree was trained, and belong to the leaf that the
present router sends them to, so that it forgets nothing. The others show the new leaf's damage, made here or given as
pairs, and belong to that leaf. As in the tree's own training, every expert restores every sample once, and the router
learns from that table (:mod:`moir.training.tree.router`). A fifth of the samples is held out, and judges.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from moir import degrade
from moir.base.errors import TrainingError
from moir.base.files import write_text
from moir.base.names import DEGREES, TYPES, check_name
from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import find_weights, load_model
from moir.training.adaptation_data import Pair, Patches, in_folder, load_pairs
from moir.training.adaptation_settings import Adaptation
from moir.training.data import DamagedPatches, load_pictures
from moir.training.tree.cluster import label_of
from moir.training.tree.join_recipe import JoinRecipe
from moir.training.tree.outcomes import Batch, Outcomes, measure
from moir.training.tree.router import ENOUGH, train_router
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.router import Route, Router
from moir.universal.tree import Leaf
from moir.universal.tree_joining import save_tree

OUTCOMES, BELONGING = "outcomes.safetensors", "leaves.safetensors"
ACCOUNT, WEIGHTS = "account.json", "weights.safetensors"

BATCH = 16
"""Pictures that are looked at together."""

HELD_OUT = 5
"""Every fifth sample is held out; of a new leaf, from every fifth picture, which no other sample is cut from."""

Report = Callable[[int, int], None]
"""Called with samples done and all samples."""


@dataclass(frozen=True)
class Samples:
    """What the router learns from.

    Attributes:
        outcomes: Of N samples.
        leaf: (N,) int64, where each belongs.
        own: (N,) bool, whether it was made or given for a new leaf.
        held_out: (N,) bool, whether it is held out.
    """

    outcomes: Outcomes
    leaf: torch.Tensor
    own: torch.Tensor
    held_out: torch.Tensor

    def part(self, rows: torch.Tensor) -> "Samples":
        """Some of them."""
        columns: dict[str, Any] = {
            name: value[rows] for name, value in vars(self.outcomes).items() if isinstance(value, torch.Tensor)
        }
        return Samples(replace(self.outcomes, **columns), self.leaf[rows], self.own[rows], self.held_out[rows])


def train_join(recipe: JoinRecipe, folder: str | Path, on_step: Report | None = None) -> Path:
    """Train the router of a tree again. What was measured before a stop is not measured again.

    The folder receives ``weights.safetensors`` with its card, ``account.json`` (what the router does with the samples
    held out, before and after), and the samples: ``outcomes.safetensors``, ``leaves.safetensors``.

    Args:
        recipe: The run.
        folder: Where everything is written.
        on_step: See :data:`Report`.

    Returns:
        The weights.

    Raises:
        TrainingError: ``start`` is no tree whose experts share a network; or it is not known what the new leaf is for.
        UnknownNameError: The tree has no such leaf.
        CheckpointError, DatasetError: Files are missing or damaged.
    """
    out = Path(folder)
    network, card = _opened(recipe)
    leaves = leaves_of(recipe, network)
    samples = _measured(recipe, network, leaves, out, on_step)
    before = present_router(network)
    shown = samples.part(~samples.held_out)
    centres = centres_of(shown.outcomes.points, shown.leaf, len(network.tree.leaves))
    router = train_router(
        shown.outcomes, network.tree, centres, shown.leaf, recipe.router, recipe.seed, start=present_router(network)
    )
    judged = judge(network, before, router, samples.part(samples.held_out), leaves)
    write_text(out / ACCOUNT, json.dumps(judged, indent=1) + "\n", overwrite=True)
    network.load_state_dict(router.state_dict(), strict=False)
    network.waiting = tuple(leaf for leaf in network.waiting if leaf not in leaves)
    network.options = {**network.options, "waiting": list(network.waiting)}
    card = replace(card, name=recipe.name, compute={**card.compute, "router_samples": len(samples.leaf)})
    save_tree(network, card, out / WEIGHTS, overwrite=True)
    return out / WEIGHTS


def leaves_of(recipe: JoinRecipe, network: CompactUniRestorer) -> list[int]:
    """The leaves whose samples are made or given.

    Raises:
        TrainingError: Pairs, and not one leaf that they are for; or a leaf of unnamed damage, and no pairs.
        UnknownNameError: No such leaf.
    """
    names = [leaf.name for leaf in network.tree.leaves]
    leaves = list(network.waiting)
    if recipe.leaf is not None:
        leaves = [names.index(check_name(recipe.leaf, names, "leaf"))]
    if recipe.pairs is not None and len(leaves) != 1:
        waiting = ", ".join(names[leaf] for leaf in leaves) or "none waits"
        raise TrainingError(f"the pairs are of one leaf, and it is not clear which ({waiting}); give leaf=NAME")
    for leaf in leaves:
        if recipe.pairs is None and not network.tree.leaves[leaf].types:
            raise TrainingError(
                f"the leaf {names[leaf]!r} is of none of the known types, so its damage cannot be made here; give "
                "pairs=FOLDER, with damaged pictures in input/ and clean ones of the same names in target/"
            )
    return leaves


def present_router(network: CompactUniRestorer) -> Router:
    """The router as it is, by itself; a leaf that waits has no evidence for or against it."""
    router = Router(network.extractor.features, len(network.tree.leaves), len(network.tree.levels))
    state = network.state_dict()
    router.load_state_dict({name: state[name] for name in router.state_dict()})
    return router.eval()


def centres_of(points: torch.Tensor, leaf: torch.Tensor, leaves: int) -> torch.Tensor:
    """Means of the places of each leaf's samples, (leaves, F); 0 where it has none, and where nothing asks for it.

    Args:
        points: (N, F), places of the samples.
        leaf: (N,), where each belongs.
        leaves: How many there are.
    """
    centres = torch.zeros(leaves, points.shape[1])
    for number in leaf.unique().tolist():
        centres[number] = points[leaf == number].mean(0)
    return centres


@torch.inference_mode()
def judge(
    network: CompactUniRestorer, before: Router, after: Router, held_out: Samples, leaves: Sequence[int]
) -> dict[str, Any]:
    """What two routers do with samples that neither was trained on here.

    The router's choice alone is judged; the tree also asks the estimate (:class:`moir.universal.agreement.Agreement`).

    Args:
        network: The tree; leaves that wait are not chosen before.
        before, after: The routers.
        held_out: Samples.
        leaves: The new ones.

    Returns:
        For ``own`` (of the new leaves) and ``others``: ``n``; ``new``: the share sent to the new leaves; ``psnr`` in
        dB, at most 40 for each sample, ``before`` and ``after``; and for the others ``unchanged``: the share that is
        restored by the same expert as before.
    """
    points, table = held_out.outcomes.points, network.tree.table()
    waits = torch.tensor([n in network.waiting for n in range(len(network.tree.leaves))])
    routes = {"before": before(points, waits), "after": after(points)}
    experts = {name: _owners(network, route) for name, route in routes.items()}
    psnr = held_out.outcomes.psnr.clamp(max=ENOUGH)
    reached = {n: psnr.gather(1, table[r.leaf, r.level][:, None])[:, 0] for n, r in routes.items()}
    found: dict[str, Any] = {}
    for name, rows in (("own", held_out.own), ("others", ~held_out.own)):
        if not bool(rows.any()):
            continue
        sent = torch.isin(routes["after"].leaf[rows], torch.tensor(leaves, dtype=torch.long))
        found[name] = {"n": int(rows.sum()), "new": round(float(sent.float().mean()), 4)}
        found[name]["psnr"] = {n: round(float(values[rows].mean()), 3) for n, values in reached.items()}
    if "others" in found:
        same = (experts["before"] == experts["after"])[~held_out.own]
        found["others"]["unchanged"] = round(float(same.float().mean()), 4)
    return found


def _owners(network: CompactUniRestorer, route: Route) -> torch.Tensor:
    """(N,), the expert whose network restores; one below 0 for identities."""
    chosen = network.tree.table()[route.leaf, route.level].tolist()
    return torch.tensor([-1 if network.tree.is_clean(number) else network.owner_of(number) for number in chosen])


def _opened(recipe: JoinRecipe) -> tuple[CompactUniRestorer, Card]:
    start = os.path.expandvars(recipe.start)
    if start.startswith("$"):
        raise TrainingError(f"{start} is not set; give the tree: --set start=FILE, which 'moir expert add' wrote")
    network, card = load_model(start)
    if not isinstance(network, CompactUniRestorer):
        raise TrainingError(
            f"start={recipe.start!r} is a {type(network).__name__}, not a tree whose experts share a network; the "
            "router of a pool is trained by the recipe of the pool: --set stage=router --set start=POOL"
        )
    return network, card


def _measured(
    recipe: JoinRecipe, network: CompactUniRestorer, leaves: Sequence[int], folder: Path, on_step: Report | None
) -> Samples:
    """The samples, measured or as they were measured before."""
    stage = recipe.router
    of = recipe.model_dump(mode="json", include={"leaf", "pairs", "own", "data", "seed"})
    of |= {"samples": stage.samples, "size": stage.size, "crop": stage.crop}
    of["start"] = sha256_of(find_weights(os.path.expandvars(recipe.start)))
    outcomes, belonging = folder / OUTCOMES, folder / BELONGING
    if outcomes.exists() and belonging.exists():
        tensors, facts = read_tensors(belonging)
        if facts.get("of") == of:
            return Samples(Outcomes.load(outcomes), tensors["leaf"], tensors["own"], tensors["held_out"])
    patches = {leaf: _given(recipe, network.tree.leaves[leaf]) for leaf in leaves}
    sides = sorted({stage.size, *(own.learnt.side for own in patches.values())})
    clean = recipe.own if recipe.pairs is not None else 0
    total, done = stage.samples + recipe.own * len(leaves) + clean, 0
    parts: list[Samples] = []

    def take(batches: Iterator[Batch], leaf: int | None) -> None:
        nonlocal done
        before = done
        report = None if on_step is None else (lambda count: on_step(min(before + count, total), total))
        found = measure(network, batches, stage.crop, report)
        own = torch.full((len(found),), leaf is not None)
        belongs = _present(network, found, leaves) if leaf is None else own.long() * leaf
        parts.append(Samples(found, belongs, own, _held_out(len(found))))
        done += len(found)

    for number, side in enumerate(sides):
        # As many of each size as of the new leaf's pictures: size must not tell which leaf a picture belongs to.
        count = len(range(number, stage.samples, len(sides)))
        take(_damaged(recipe, count, side), None)
    for leaf, own in patches.items():
        take(_of_leaf(own, network.tree.leaves[leaf], recipe.own), leaf)
        if clean:  # the same pictures without the damage: it is not the pictures that belong to the leaf
            take(_undamaged(own, clean), None)
    table = reduce(Outcomes.followed_by, (part.outcomes for part in parts))
    table.save(outcomes)
    which = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("leaf", "own", "held_out")}
    write_tensors(belonging, which, {"of": of}, overwrite=True)
    return Samples(table, **which)


def _held_out(count: int) -> torch.Tensor:
    """Which of so many samples are held out, (count,) bool."""
    return torch.arange(count) % HELD_OUT == HELD_OUT - 1


@torch.inference_mode()
def _present(network: CompactUniRestorer, found: Outcomes, leaves: Sequence[int]) -> torch.Tensor:
    """Where samples belong that were not made for a new leaf: where the present router sends them.

    But for those that are just what a new leaf is for: they belong there.
    """
    leaf = network.route(found.points).leaf.clone()
    for row, (presence, degree) in enumerate(zip(found.presence.tolist(), found.degree.tolist(), strict=True)):
        label = label_of(presence, degree)
        for number in leaves:
            new = network.tree.leaves[number]
            if new.types and set(new.types) == set(label.types) and new.degree in (None, label.degree):
                leaf[row] = number
    return leaf


def _damaged(recipe: JoinRecipe, count: int, side: int) -> Iterator[Batch]:
    """Clean pictures with the damage of the recipe."""
    data = recipe.data.model_copy(update={"patch": side, "instruct": 0.0})
    samples = DamagedPatches(load_pictures(recipe.data.folders, side), data, recipe.seed + side)
    yield from DataLoader(Subset(samples, range(count)), batch_size=BATCH, num_workers=recipe.data.workers)


@dataclass(frozen=True)
class _Given:
    """Patches of a new leaf's pictures, from those that are learnt from and from those held out.

    Attributes:
        learnt, held_out: Of the pictures.
    """

    learnt: Patches
    held_out: Patches

    @classmethod
    def of(cls, pictures: Sequence[Pair], settings: Adaptation, damage: degrade.Request | None = None) -> "_Given":
        """Split the pictures."""
        settings = settings.model_copy(update={"patch": Patches(pictures, settings).side})
        apart = [n for n in range(len(pictures)) if n % HELD_OUT == HELD_OUT - 1] or [len(pictures) - 1]
        rest = [n for n in range(len(pictures)) if n not in apart] or apart
        learnt, held_out = (Patches([pictures[n] for n in numbers], settings, damage) for numbers in (rest, apart))
        return cls(learnt, held_out)

    def batches(self, count: int, stream: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and targets of so many samples; those that are held out are of other pictures."""
        apart = _held_out(count)
        for step, rows in enumerate(torch.arange(count).split(BATCH)):
            both = zip(self.learnt.batch(step, stream), self.held_out.batch(step, stream), strict=True)
            where = apart[rows][:, None, None, None]
            x, y = (torch.where(where, held[: len(rows)], shown[: len(rows)]) for shown, held in both)
            yield x, y


def _given(recipe: JoinRecipe, leaf: Leaf) -> _Given:
    """Patches of a new leaf's damage: of the pairs, or made."""
    settings = Adaptation(batch=BATCH, patch=recipe.router.size, seed=recipe.seed)
    if recipe.pairs is not None:
        return _Given.of(load_pairs(in_folder(os.path.expandvars(recipe.pairs)), recipe.seed), settings)
    pictures = [Pair(str(n), None, p) for n, p in enumerate(load_pictures(recipe.data.folders, recipe.router.size))]
    spec = ",".join(type_ if leaf.degree is None else f"{type_}={leaf.degree}" for type_ in leaf.types)
    return _Given.of(pictures, settings, degrade.parse(spec))


def _of_leaf(given: _Given, leaf: Leaf, count: int) -> Iterator[Batch]:
    """Samples of a leaf."""
    presence = torch.tensor([float(type_ in leaf.types) for type_ in TYPES])
    degree = torch.full((len(TYPES),), -1)
    if leaf.degree is not None:
        degree[presence > 0] = DEGREES.index(leaf.degree)
    for x, y in given.batches(count):
        yield {"input": x, "target": y, "presence": presence.expand(len(x), -1), "degree": degree.expand(len(x), -1)}


def _undamaged(given: _Given, count: int) -> Iterator[Batch]:
    """The targets of pairs, as pictures that need nothing."""
    for _, y in given.batches(count, stream=1):
        none = torch.zeros(len(y), len(TYPES))
        yield {"input": y, "target": y, "presence": none, "degree": none.long() - 1}
