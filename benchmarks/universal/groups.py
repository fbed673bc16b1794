"""How many groups: 1, 2, 4, 8 or 13 experts, each number of them trained for equally long in total.

    MOIR_DATA=/path python benchmarks/universal/groups.py RUN --data ROOT --output benchmarks/universal/groups.md

RUN is the folder of `moir train recipes/tree/all.yaml`, whose representations are clustered anew, into one level of so
many groups. Each group gets an expert: the shared network, whose parameters that the recipe names are trained on damage
as in the group, for its share of --steps. MOIR_DATA/train holds the recipe's pictures, ROOT cid22_validation. A picture
of the settings of routing.py is restored by the expert of the nearest centre; there is no router. Experts that are
trained are kept in RUN/groups, and one that was stopped goes on; the table is written after each number of groups.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from routing_pictures import CROP, RANGES, SETTINGS, WHOLE, Setting, damaged
from routing_tables import header, row

from moir.base.files import write_text
from moir.checkpoints import read_tensors
from moir.training.reading import load_recipe
from moir.training.recipe import Validation
from moir.training.tree.assembly import assemble
from moir.training.tree.cluster import REPRESENTATIONS, TREE, Represented, load_extractor, members_of
from moir.training.tree.experts import train_experts
from moir.training.tree.extractor import WEIGHTS
from moir.training.tree.outcomes import Outcomes, measure
from moir.training.tree.recipe import ExpertSettings, TreeRecipe
from moir.universal.clustering import Clustering, cluster_tree, nearest
from moir.universal.tree import Leaf, Tree

RECIPE = Path(__file__).parents[2] / "recipes" / "tree" / "all.yaml"
LEVELS = ("all", "group")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4, 8, 13])
    parser.add_argument("--steps", type=int, default=900, help="of all experts together; default: %(default)s")
    parser.add_argument("--batch", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--patch", type=int, default=64, help="pixels; default: %(default)s")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples; default: %(default)s")
    parser.add_argument("--pictures", type=int, default=4, help="of each setting; default: %(default)s")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="of the run; default: recipes/tree/all.yaml")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = load_recipe(options.recipe)
    stage = recipe.experts.model_copy(update={"steps": {}, "batch": options.batch, "patch": options.patch})
    data = recipe.data.model_copy(update={"workers": options.workers})
    recipe = recipe.model_copy(update={"experts": stage, "data": data, "held_out": Validation()})
    kept = options.run / "groups" / f"{options.steps}x{options.batch}x{options.patch}"
    lines = report_head(options.steps, options.batch, options.patch, options.pictures)
    for count in options.groups:
        division = divide(recipe, options.run, count)
        keep(division.clustering, kept / str(count))
        steps = shares(division.clustering, options.steps)
        outcomes = restored(recipe, division, steps, options.run, kept / str(count), options.data, options.pictures)
        lines.append(row(cells(division.clustering, steps, outcomes)))
        if options.output:
            write_text(options.output, "\n".join([*lines, ""]), overwrite=True)
    print("\n".join(lines))


@dataclass(frozen=True)
class Division:
    """Groups of representations, and what is in each.

    Attributes:
        clustering: The groups.
        tree: One level of them below the shared network. They have no types: nothing but its own estimate tells an
            expert what to remove, and no group passes pictures through as clean.
        members: For each group, by name, how many members have which damage.
    """

    clustering: Clustering
    tree: Tree
    members: Mapping[str, Mapping[str, int]]


def divide(recipe: TreeRecipe, run: Path, count: int) -> Division:
    """The run's representations in so many groups."""
    found = Represented(**read_tensors(run / "cluster" / REPRESENTATIONS)[0])
    points = load_extractor(recipe, run / "extractor" / WEIGHTS).place(found.points)
    clustering = cluster_tree(np.asarray(points), found.labels, (count,), recipe.seed)
    leaves = clustering.tree.leaves
    groups = tuple(Leaf(leaf.name, (), (0, number), unnamed=True) for number, leaf in enumerate(leaves, 1))
    return Division(clustering, Tree(groups, LEVELS), members_of(clustering, found.labels))


def keep(clustering: Clustering, folder: Path) -> None:
    """Write the groups; stop where experts of others are in the folder."""
    path = folder / TREE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        clustering.save(path)
    elif not np.array_equal(Clustering.load(path).assignment, clustering.assignment):
        raise SystemExit(f"{folder} holds experts of other groups: the run was clustered anew since; remove the folder")


def shares(clustering: Clustering, steps: int) -> list[int]:
    """Steps of each group by its size, which add up to all of them."""
    sizes = np.bincount(clustering.assignment, minlength=len(clustering.centres))
    ends = np.round(np.cumsum(sizes) / sizes.sum() * steps).astype(int)
    return np.diff(ends, prepend=0).tolist()


def restored(
    recipe: TreeRecipe, division: Division, steps: Sequence[int], run: Path, folder: Path, root: Path, pictures: int
) -> dict[Setting, Outcomes]:
    """Train the experts of all groups, and restore the pictures of all settings with every one."""
    tree = division.tree
    each = {
        f"{leaf.name} ({LEVELS[1]})": ExpertSettings(steps=own) for leaf, own in zip(tree.leaves, steps, strict=True)
    }
    recipe = recipe.model_copy(update={"experts": recipe.experts.model_copy(update={"each": each})})
    weights = train_experts(recipe, tree, division.members, folder)
    network = assemble(recipe, tree, run / "extractor" / WEIGHTS, weights)
    found = {}
    for setting in SETTINGS:
        logging.info("%d groups, %s, %s", len(tree.leaves), RANGES[setting.range], setting.name)
        found[setting] = measure(network, damaged(root, setting, pictures), CROP)
    return found


def cells(clustering: Clustering, steps: Sequence[int], found: Mapping[Setting, Outcomes]) -> list[str]:
    """One row of the table."""
    gains, best = {}, {}
    for setting, outcomes in found.items():
        gain = outcomes.psnr[:, 1:] - outcomes.psnr[:, :1]
        own = torch.from_numpy(nearest(np.asarray(outcomes.points), clustering.centres))
        gains[setting] = float(gain.gather(1, own[:, None]).mean())
        best[setting] = float(gain.amax(1).clamp(min=0).mean())  # the shared network is there, too
    out = [str(len(steps)), f"{min(steps)} to {max(steps)}"]
    for where in RANGES:
        own = [s for s in SETTINGS if s.range == where]
        parts = ([s for s in own if s.is_single], [s for s in own if not s.is_single], own)
        out += [f"{np.mean([gains[s] for s in part]):+.3f}" for part in parts]
        out.append(f"{np.mean([best[s] for s in own]):+.3f}")
    return out


def report_head(steps: int, batch: int, patch: int, pictures: int) -> list[str]:
    """What stands above the rows."""
    columns = [f"{part}, {where}" for where, part in product(RANGES.values(), ("single", "mixed", "all", "oracle"))]
    return [
        "# How many groups",
        "",
        f"Gain over the shared network, dB, mean over {pictures} pictures of cid22_validation in each of seven single "
        f"and seven mixed settings (decision on {WHOLE} px, centre {CROP} px scored). For every number of groups "
        f"{steps} steps of {batch} patches of {patch} px in total, each group's share by its size. A picture is "
        "restored by the expert of the nearest centre, without router; `oracle`: by the best of the experts and the "
        "shared network.",
        "",
        *header(["groups", "steps each", *columns]),
    ]


if __name__ == "__main__":
    main()
