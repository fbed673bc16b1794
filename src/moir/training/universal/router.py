"""Stage 4: the router learns where in the tree a picture belongs (equations 7 to 9); all else is frozen."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moir.base.errors import TrainingError
from moir.base.names import CLEAN
from moir.checkpoints import Card
from moir.metrics import psnr
from moir.training.data import load_pictures
from moir.training.universal.plots import draw_granularity, draw_matrix
from moir.training.universal.recipe import UniRestorerRecipe
from moir.training.universal.represent import CLUSTERING, cluster, to_json
from moir.training.universal.samples import Patches, draw_of, labels_of
from moir.training.universal.steps import OnStep, Plan, fit
from moir.universal.clustering import nearest
from moir.universal.daclip import DaClip
from moir.universal.joining import centres_by_label, pool_in_file
from moir.universal.losses import router_loss
from moir.universal.network import UniRestorer
from moir.universal.opening import EXTRACTOR, head_of, open_unirestorer
from moir.universal.pool import fingerprint
from moir.universal.pool_file import CENTRES, Member, Pool, pool_of, relocated, write_pool
from moir.universal.router import Router
from moir.universal.store import open_store
from moir.universal.tree import Tree

log = logging.getLogger(__name__)

FOLDER = "router"
RESULT = "unirestorer.safetensors"
HELD_OUT = 1 << 40
"""Samples from this number on are not trained on; they are patches of the same photographs."""


def train_router(
    recipe: UniRestorerRecipe,
    folder: Path,
    *,
    extractor: Callable[[UniRestorerRecipe], DaClip],
    expert_files: Callable[[UniRestorerRecipe, Tree, Path], list[Path]],
    device: torch.device,
    on_step: OnStep | None = None,
) -> Path:
    """Train the router of a run's experts, or that of a pool again.

    The folder receives ``router/`` with the state (which holds no expert), the curves and the account of
    :func:`account_of`, and ``unirestorer.safetensors``.

    Args:
        recipe: The recipe; its ``start`` names a pool.
        folder: The run's.
        extractor: Makes the extractor.
        expert_files: Finds the experts.
        device: Where it is trained.
        on_step: Called after every step.

    Returns:
        The pool, extractor and router in it, which refers to the experts.
    """
    out, first = folder / FOLDER, folder / FOLDER / "start.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    if recipe.start is not None:
        first = Path(os.path.expandvars(recipe.start)).expanduser()
        if first.suffix != ".safetensors":
            raise TrainingError(
                f"start={first}: the trained router refers to the experts' file, which must be .safetensors; make "
                "one of it: moir convert, or moir expert add --whole"
            )
    elif not first.exists():
        _write_start(recipe, folder, first, extractor(recipe), expert_files)
    network = open_unirestorer(first, resident=recipe.router.resident)
    pictures = load_pictures(recipe.data.folders, recipe.router.patch)
    samples = Patches(pictures, draw_of(recipe.data), recipe.router.patch, recipe.seed)
    network.to(device)
    centres = torch.from_numpy(_centres(first, network, samples, recipe, device)).float().to(device)
    trained = _router_of(network)
    settings = recipe.router
    optimiser = torch.optim.Adam((p for p in trained.parameters() if p.requires_grad), settings.learning_rate)

    def loss(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x = batch["input"]
        points = network.represent(x)
        route = network.route(points)
        output = network(x, network.context_of(route))
        return router_loss(output, batch["target"], route, centres[_nearest(points, centres)], settings.uncertainty)

    network.train()
    plan = Plan(
        settings.steps, settings.batch, lambda step: settings.learning_rate, recipe.data.workers, recipe.save_every,
        recipe.log_every, recipe.seed,
    )  # fmt: skip
    fit(trained, optimiser, samples, loss, plan, out, device=device, on_step=on_step)
    network.eval()
    result = folder / RESULT
    _write_result(first, network, centres, result, {"recipe": recipe.name, "steps": settings.steps})
    account = account_of(network, samples, centres, settings.held_out, settings.batch, device, out)
    to_json(out / "account.json", account)
    return result


@torch.inference_mode()
def account_of(
    network: UniRestorer,
    samples: Patches,
    centres: torch.Tensor,
    count: int,
    batch: int,
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    """What the router does with samples that it was not trained on, in numbers and pictures.

    Writes ``confusion.png`` (the damage against the leaf chosen), ``usage.png`` (the damage against the expert that
    ran) and ``granularity.png`` (the level chosen against the error of the estimate).

    Args:
        network: In evaluation mode.
        samples: Where they come from.
        centres: (leaves, features).
        count: How many.
        batch: How many at a time.
        device: Where the network is.
        out: The folder.

    Returns:
        Shares of right leaves and types, of the levels and experts, and the mean PSNR of inputs and results, dB.
    """
    tree = network.tree
    names: list[str] = []
    right_types: list[bool] = []
    found: dict[str, list[np.ndarray]] = {
        k: [] for k in ("leaf", "near", "level", "expert", "error", "before", "after")
    }
    for start in range(0, count, batch):
        drawn = [samples[HELD_OUT + index] for index in range(start, min(start + batch, count))]
        x = torch.stack([sample["input"] for sample in drawn]).to(device)
        target = torch.stack([sample["target"] for sample in drawn]).to(device)
        labels = labels_of({k: torch.stack([s[k] for s in drawn]) for k in ("presence", "degree")})
        points = network.represent(x)
        near = _nearest(points, centres)
        context = network.prepare(x, network.context_of(network.route(points)))
        restored = network(x, context).clamp(0, 1)
        for key in ("leaf", "level", "expert"):
            found[key].append(context[key].cpu().numpy())
        found["near"].append(near.cpu().numpy())
        found["error"].append((context["mu"] - centres[near]).norm(dim=1).cpu().numpy())
        found["before"].append(psnr(x, target).clamp(max=100).cpu().numpy())
        found["after"].append(psnr(restored, target).clamp(max=100).cpu().numpy())
        names += [" ".join(filter(None, (label.degree, "-".join(label.types) or CLEAN))) for label in labels]
        chosen = [tree.leaves[leaf].types for leaf in context["leaf"].tolist()]
        right_types += [set(label.types) == set(types) for label, types in zip(labels, chosen, strict=True)]
    flat = {key: np.concatenate(parts) for key, parts in found.items()}
    order = sorted(set(names))
    for file, key, columns in (
        ("confusion.png", "leaf", [leaf.name for leaf in tree.leaves]),
        ("usage.png", "expert", [f"{number} {tree.name_of(number)}" for number in range(tree.experts)]),
    ):
        counts = np.zeros((len(order), len(columns)))
        np.add.at(counts, (np.array([order.index(name) for name in names]), flat[key]), 1)
        across = "leaf chosen" if key == "leaf" else "expert that ran"
        draw_matrix(counts, order, columns, out / file, "damage", across)
    draw_granularity(flat["error"], flat["level"], tree.levels, out / "granularity.png")
    return {
        "pictures": count,
        "leaf_is_nearest_centre": float((flat["leaf"] == flat["near"]).mean()),
        "types_right": float(np.mean(right_types)),
        "levels": {name: float((flat["level"] == n).mean()) for n, name in enumerate(tree.levels)},
        "experts": {str(n): float((flat["expert"] == n).mean()) for n in range(tree.experts)},
        "psnr_before": float(flat["before"].mean()),
        "psnr_after": float(flat["after"].mean()),
    }


def _write_start(
    recipe: UniRestorerRecipe,
    folder: Path,
    path: Path,
    extractor: DaClip,
    expert_files: Callable[[UniRestorerRecipe, Tree, Path], list[Path]],
) -> None:
    """A pool of the run's experts with a fresh router."""
    if not (folder / CLUSTERING).exists():
        raise TrainingError(f"{folder / CLUSTERING} is missing; run the stage 'cluster' first")
    clustering = cluster(recipe, folder)
    tree = clustering.tree
    members = []
    for number, file in enumerate(expert_files(recipe, tree, folder)):
        card, store = Card.read(file.with_suffix(".json")), open_store(file)
        member = Member(
            card.model,
            card.options,
            card.licence,
            f"{card.source}, for {tree.name_of(number)}",
            fingerprint(store.read(store.shapes)),
        )
        members.append(relocated(member, file, path))
    per_level = [len({row[level] for row in tree.rows}) for level in range(len(tree.levels))]
    numbered = iter(members)
    torch.manual_seed(recipe.seed)
    router = Router(extractor.features, len(tree.leaves), len(tree.levels))
    head = {f"{EXTRACTOR}{name}": value for name, value in extractor.state_dict().items()}
    head |= router.state_dict() | {CENTRES: torch.from_numpy(clustering.centres).float()}
    pool = Pool(tree, {}, tuple(tuple(next(numbered) for _ in range(count)) for count in per_level))
    write_pool(path, pool, head)


def _write_result(start: Path, network: UniRestorer, centres: torch.Tensor, path: Path, notes: dict[str, Any]) -> None:
    """The pool of the start with the trained router; its experts stay where they are."""
    pool = pool_of(open_store(start))
    if pool is None:  # a published checkpoint in one file: its header does not say what it is
        pool = pool_in_file(network)
    members = tuple(tuple(relocated(member, start, path) for member in level) for level in pool.members)
    head = head_of(network).state_dict()
    write_pool(
        path, Pool(network.tree, {}, members, {**pool.notes, **notes}), {**head, CENTRES: centres}, overwrite=True
    )


def _centres(
    start: Path, network: UniRestorer, samples: Patches, recipe: UniRestorerRecipe, device: torch.device
) -> np.ndarray:
    """The centres of the finest groups: those of the clustering, and others from pictures with fitting labels."""
    store = open_store(start)
    known = store.read([CENTRES])[CENTRES].numpy() if CENTRES in store.shapes else None
    if known is not None and np.isfinite(known).all():
        return known
    points, labels, leaves = [], [], []
    network.eval()
    batch = recipe.extractor.batch
    for first in range(0, recipe.cluster.samples, batch):
        drawn = [samples[HELD_OUT * 2 + i] for i in range(first, min(first + batch, recipe.cluster.samples))]
        x = torch.stack([sample["input"] for sample in drawn]).to(device)
        with torch.inference_mode():
            shown = network.represent(x)
            points.append(shown.cpu().numpy())
            leaves.append(network.route(shown).leaf_probability.cpu().numpy())
        labels += labels_of({k: torch.stack([s[k] for s in drawn]) for k in ("presence", "degree")})
    return centres_by_label(network.tree, np.concatenate(points), labels, np.concatenate(leaves), known)


def _router_of(network: UniRestorer) -> torch.nn.Module:
    """What is trained, under the names of the published state dict."""
    return torch.nn.ModuleDict(
        {"mu": network.mu, "sigma": network.sigma, "lf_gate": network.lf_gate, "layer_gate": network.layer_gate}
    )


def _nearest(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(nearest(points.detach().cpu().numpy(), centres.cpu().numpy())).to(points.device)
