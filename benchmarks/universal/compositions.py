"""Which experts, one after the other or together, serve the groups of the tree best that have haze or darkness.

    python benchmarks/universal/compositions.py --data ROOT [--model TREE] [--grid GRID] [--samples N] [--output F.md]

Training pictures are damaged anew, with a seed that no network was trained on, and sent to their group by the tree's
router. Every way of restoring a group is tried on all pictures that came there. The decision is made on 256 px, the
centre of 128 px is restored and scored: PSNR over RGB, dB, mean. Nothing is trained here, and no test picture is used:
the ways that win go into recipes/tree/all.yaml.
"""

import argparse
import os
from collections import defaultdict
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from moir.base.files import write_text
from moir.evaluation.report.tables import markdown_table
from moir.models import create_model, load_model
from moir.networks.base import PLACE
from moir.runtime.fast import accelerate
from moir.training.data import DamagedPatches, load_pictures
from moir.training.reading import load_recipe
from moir.training.tree.outcomes import centre, place_of_centre
from moir.universal.agreement import instruction
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.composed_expert import ComposedExpert, read_steps

RECIPE = Path(__file__).parents[2] / "recipes" / "tree" / "all.yaml"
SEED = 4242
SIZE, CROP = 256, 128

# A part: the expert's name and level (or grid), and what it is told. Steps are separated by |, parts of one by +.
DEHAZE, LIGHTEN = "haze (type): haze + grid: haze", "lowlight (type): lowlight + grid: lowlight"
WAYS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("haze",): ("haze (type): haze", "grid: haze", DEHAZE, f"all (all): jpeg | {DEHAZE}"),
    ("lowlight",): ("lowlight (type): lowlight", "grid: lowlight", LIGHTEN, f"noise (type): noise | {LIGHTEN}",
                    f"lowlight (type): lowlight + noise (type): noise | {LIGHTEN}"),
    ("rain", "haze"): (f"rain (degree): rain | {DEHAZE}", f"all (all): rain | {DEHAZE}",
                       f"all (all): noise rain | {DEHAZE}", f"noise (type): noise | rain (degree): rain | {DEHAZE}"),
    ("noise", "haze"): (f"noise (type): noise | {DEHAZE}", f"all (all): noise | {DEHAZE}",
                        f"noise (type): noise | rain (degree): rain | {DEHAZE}"),
}  # fmt: skip
MIXED = (
    "noise-haze-snow-blur-lowlight (type)",
    "noise-haze-snow-blur-lowlight (type) + all (all)",
    "all (all): noise rain snow | grid: haze lowlight",
    "noise (type): noise | all (all): rain snow blur | grid: haze lowlight",
)
"""Ways for groups of three types and more."""


def steps_of(way: str, numbers: dict[str, int]) -> list[list[dict[str, object]]]:
    """A way as the form of an expert."""

    def part(words: str) -> dict[str, object]:
        name, _, told = (piece.strip() for piece in words.partition(":"))
        return {"grid": told.split()} if name == "grid" else {"expert": numbers[name], "told": told.split()}

    return [[part(words) for words in step.split(" + ")] for step in way.split(" | ")]


def with_grid(tree: CompactUniRestorer, grid: str | None) -> CompactUniRestorer:
    """The tree, with a bilateral grid if it has none."""
    if grid is None:
        return tree
    other, _ = load_model(grid)
    made = create_model("unirestorer_compact", **{**tree.options, "scene": other.options})
    made.load_state_dict(tree.state_dict(), strict=False)
    made.scene.load_state_dict(other.state_dict())
    assert isinstance(made, CompactUniRestorer)
    return made.eval()


@torch.inference_mode()
def measure(tree: CompactUniRestorer, samples: DataLoader) -> dict[int, dict[str, list[float]]]:
    """By leaf and way the PSNR of each picture that came there."""
    names = {f"{tree.tree.name_of(n)} ({tree.tree.level_of(n)})": n for n in reversed(range(tree.tree.experts))}
    faster: dict[int, object] = {}
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def expert(number: int) -> object:
        owner = tree.owner_of(number)
        if owner not in faster:
            faster[owner] = accelerate(tree.expert(owner)) or tree.expert(owner)
        return faster[owner]

    for batch in samples:
        x, target = batch["input"], batch["target"]
        context = tree.analyse(x)
        leaf = int(context["leaf"])
        types = tree.tree.leaves[leaf].types
        if not {"haze", "lowlight"} & set(types):
            continue
        own = f"{tree.tree.name_of(int(tree.tree.table()[leaf, -1]))} (degree)"
        ways = ("all (all)", own, *WAYS.get(types, MIXED))
        crop, clean = centre(x, CROP), centre(target, CROP)
        steering = tree.steering({**context, PLACE: place_of_centre(x, CROP)}, 1)
        for way in dict.fromkeys(ways):
            steps = read_steps(steps_of(way, names))
            used = {part.expert for step in steps for part in step if part.expert is not None}
            composed = ComposedExpert(steps, {n: expert(n) for n in used}, tree.scene).eval()
            told = tree.told(int(tree.tree.table()[leaf, -1])) if way == own else ()  # as the tree does it
            remove = instruction(told)[None] if told else context["found"]
            given = {**steering, "remove": remove}
            error = (composed(crop, given).clamp(0, 1) - clean).square().mean()
            found[leaf][way].append(-10 * error.clamp_min(1e-10).log10().item())
    return found


def main() -> None:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that recipes call MOIR_DATA")
    parser.add_argument("--model", default="unirestorer_compact")
    parser.add_argument("--grid", help="a bilateral grid, if the tree has none, or another")
    parser.add_argument("--samples", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ["MOIR_DATA"] = options.data
    recipe = load_recipe(RECIPE)
    tree, _ = load_model(options.model)
    assert isinstance(tree, CompactUniRestorer)
    tree = with_grid(tree, options.grid)
    data = recipe.data.model_copy(update={"patch": SIZE, "instruct": 0.0})
    pictures = DamagedPatches(load_pictures(data.folders, SIZE), data, SEED)
    found = measure(tree, DataLoader(Subset(pictures, range(options.samples)), batch_size=1, num_workers=1))
    lines = [f"{options.samples} damaged training pictures, seed {SEED}; {CROP} px scored.", ""]
    for leaf in sorted(found):
        ways = found[leaf]
        best = max(ways, key=lambda way: sum(ways[way]))
        count = len(next(iter(ways.values())))
        rows = []
        for way, scores in ways.items():
            mean = f"{sum(scores) / count:.2f}"
            rows.append([way.replace("|", "then"), f"**{mean}**" if way == best else mean])
        lines += [f"Leaf {leaf}, {tree.tree.leaves[leaf].name} (n={count}):", ""]
        lines += [markdown_table(["way", "dB"], rows), ""]
    text = "\n".join(lines)
    print(text)
    if options.output:
        write_text(options.output, text, overwrite=True)


if __name__ == "__main__":
    main()
