"""Which experts, one after the other or together, restore haze, darkness and mixes with them best, told what is there.

    python benchmarks/universal/compositions.py --data ROOT [--model TREE] [--grid GRID] [--pictures N]
        [--range outside] [--output F.md]

On scenes of training pictures (shrunk by a random factor, 384 px) that are damaged anew, with seeds that no network was
trained on: the decision is made on the whole, the centre of 160 px is restored and scored (PSNR over RGB, dB, mean;
with the standard error of the gain over the shared network, which comes first). Nothing is trained, and no test picture
is used: what wins goes into recipes/tree/all.yaml.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch

from moir import degrade
from moir.base.files import write_text
from moir.degrade.pipeline import MIXES
from moir.evaluation.report.tables import markdown_table
from moir.models import create_model, load_model
from moir.networks.base import PLACE, Context, RestorationNetwork
from moir.runtime.fast import accelerate
from moir.training.data import DamagedPatches, load_pictures
from moir.training.reading import load_recipe
from moir.training.tree.outcomes import centre, place_of_centre
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.composed_expert import ComposedExpert, Part, read_steps
from moir.universal.expert_kinds import Composed

RECIPE = Path(__file__).parents[2] / "recipes" / "tree" / "all.yaml"
SEED, SIZE, CROP = 4242, 384, 160

# A part: the expert's name and level (or grid), and what it is told; nothing: what was found. Steps are separated by |,
# parts of one step by +, steps that are a part stand in brackets, and "2 x" says what a part counts in the mean.
MIX, RAINY, SNOWY = (
    "noise-haze-snow-blur-lowlight (type)",
    "noise-rain-haze-blur-lowlight (degree)",
    "noise-haze-snow-blur-lowlight (degree)",
)
HAZE, DARK = "haze (type): haze", "lowlight (type): lowlight"
DEHAZE, LIGHTEN = f"{HAZE} + 4 x grid: haze", f"{DARK} + 2 x grid: lowlight"
DENOISE, DERAIN = "noise (type): noise", "rain (degree): rain"
BOTH = "grid: haze lowlight"
FINE_RAIN, FINE_SNOW = f"all (all): noise rain blur | {BOTH}", f"all (all): noise snow blur | {BOTH}"
STEPS_RAIN, STEPS_SNOW = (f"{DENOISE} | all (all): {fine} blur | {BOTH}" for fine in ("rain", "snow"))
RAINY_WAYS = (MIX, RAINY, FINE_RAIN, STEPS_RAIN, f"{RAINY} + [{FINE_RAIN}]", f"{RAINY} + 2 x [{STEPS_RAIN}]")
SNOWY_WAYS = (MIX, SNOWY, FINE_SNOW, STEPS_SNOW, f"{SNOWY} + [{FINE_SNOW}]", f"{SNOWY} + 2 x [{STEPS_SNOW}]")
WAYS: dict[str, tuple[str, ...]] = {
    "haze": (HAZE, "grid: haze", f"{HAZE} + 2 x grid: haze", DEHAZE),
    "lowlight": (DARK, "grid: lowlight", LIGHTEN, f"{DENOISE} | grid: lowlight", f"{DENOISE} | {LIGHTEN}"),
    "H-R": (MIX, f"all (all): noise rain | {HAZE}", "all (all): noise rain | grid: haze",
            f"all (all): noise rain | {DEHAZE}", f"{DERAIN} | {DEHAZE}"),
    "H-N": (MIX, f"{DENOISE} | {HAZE}", f"{DENOISE} | grid: haze", f"{DENOISE} | {HAZE} + 2 x grid: haze",
            f"{DENOISE} | {DEHAZE}"),
    "H-N-R": (f"all (all): noise rain | {DEHAZE}", f"{DENOISE} | all (all): rain | {DEHAZE}",
              f"{DENOISE} | all (all): rain | grid: haze", *RAINY_WAYS),
    "LL-H-N-R": RAINY_WAYS,
    "LL-H-N-B-R": RAINY_WAYS,
    "LL-H-N-S": SNOWY_WAYS,
    "LL-H-N-B-S": SNOWY_WAYS,
}  # fmt: skip


def part_of(words: str, numbers: dict[str, int]) -> dict[str, object]:
    """A part as the form of an expert has it."""
    weight, _, rest = words.partition(" x ")
    counted: dict[str, object] = {"weight": int(weight)} if weight.isdigit() else {}
    words = rest if counted else words
    if words.startswith("["):
        return {"parts": steps_of(words[1:].rstrip("]"), numbers), **counted}
    name, _, told = (piece.strip() for piece in words.partition(":"))
    if name == "grid":
        return {"grid": told.split(), **counted}
    return {"expert": numbers[name], "told": told.split(), **counted}


def steps_of(way: str, numbers: dict[str, int]) -> list[list[dict[str, object]]]:
    """A way as the form of an expert has it; brackets may end a way."""
    head, bracket, inner = way.partition("[")
    if not bracket:
        return [[part_of(words, numbers) for words in step.split(" + ")] for step in way.split(" | ")]
    *first, last = head.split(" + ")
    return [[*(part_of(words, numbers) for words in first), part_of(f"{last}[{inner}", numbers)]]


def with_grid(tree: CompactUniRestorer, grid: str | None) -> CompactUniRestorer:
    """The tree, with another bilateral grid."""
    if grid is None:
        return tree
    other, _ = load_model(grid)
    made = create_model("unirestorer_compact", **{**tree.options, "scene": other.options})
    assert isinstance(made, CompactUniRestorer)
    assert made.scene is not None
    made.load_state_dict(tree.state_dict(), strict=False)
    made.scene.load_state_dict(other.state_dict())
    return made.eval()


@torch.inference_mode()
def measure(
    tree: CompactUniRestorer, scenes: DamagedPatches, count: int, setting: str, where: str = "inside"
) -> dict[str, torch.Tensor]:
    """By way the PSNR of each picture, (count,)."""
    names = {f"{tree.tree.name_of(n)} ({tree.tree.level_of(n)})": n for n in reversed(range(tree.tree.experts))}
    faster: dict[int, RestorationNetwork] = {}

    def expert(number: int) -> RestorationNetwork:
        owner = tree.owner_of(number)
        if owner not in faster:
            kind = tree.kinds.get(owner)
            itself = kind.itself if isinstance(kind, Composed) else None
            own = tree.expert(owner) if itself is None else itself.assembled(tree.base, tree.experts[owner])
            faster[owner] = accelerate(own) or own
        return faster[owner]

    ways: dict[str, Callable[[torch.Tensor, Context], torch.Tensor]] = {}
    for way in ("all (all)", *WAYS[setting]):
        steps = read_steps(steps_of(way, names))
        used = {part.expert for part in Part(steps=steps).all() if part.expert is not None}
        ways[way] = ComposedExpert(steps, {n: expert(n) for n in used}, tree.scene).eval()
    found: dict[str, list[float]] = {way: [] for way in ways}
    request = degrade.parse(f"{setting}={where}")
    for number in range(count):
        target = scenes[number]["target"][None]
        records = request.sample(torch.Generator().manual_seed(SEED + number))
        x = degrade.quantise(degrade.apply(target, [records]))
        context = {**tree.analyse(x), PLACE: place_of_centre(x, CROP)}
        clean = centre(target, CROP)
        for way, restore in ways.items():
            error = (restore(centre(x, CROP), tree.steering(context, 1)).clamp(0, 1) - clean).square().mean()
            found[way].append(-10 * error.clamp_min(1e-10).log10().item())
    return {way: torch.tensor(scores) for way, scores in found.items()}


def main() -> None:
    """Measure, and write tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that recipes call MOIR_DATA")
    parser.add_argument("--model", default="unirestorer_compact")
    parser.add_argument("--grid", help="another bilateral grid than the tree's")
    parser.add_argument("--pictures", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--range", choices=("inside", "outside"), default="inside", help="of the damage")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ["MOIR_DATA"] = options.data
    recipe = load_recipe(RECIPE)
    tree, _ = load_model(options.model)
    assert isinstance(tree, CompactUniRestorer)
    tree = with_grid(tree, options.grid)
    clean = recipe.data.damage.model_copy(update={"clean": 1.0, "single": 0.0, "named": 0.0, "stored": 0.0})
    changes = {"patch": SIZE, "instruct": 0.0, "shrunk": 1.0, "damage": clean}
    scenes = DamagedPatches(load_pictures(recipe.data.folders, SIZE), recipe.data.model_copy(update=changes), SEED)
    lines = [
        "# Experts made of others",
        "",
        f"Made by `python benchmarks/universal/compositions.py`: {options.pictures} training scenes of {SIZE} px, "
        f"damage {options.range} the range of training, the centre of {CROP} px scored, told what is there. PSNR in "
        "dB; the gain over the shared network with its standard error. Steps follow each other (then), and the results "
        "of parts (+) are averaged. Experts that are parts of themselves are meant by their own parameters alone.",
    ]
    for setting in WAYS:
        found = measure(tree, scenes, options.pictures, setting, options.range)
        shared = found["all (all)"]
        best = max(found, key=lambda way: float(found[way].mean()))
        rows = []
        for way, scores in found.items():
            gain = scores - shared
            mean = f"{scores.mean():.2f}"
            error = f"{gain.mean():+.2f} ± {gain.std() / len(gain) ** 0.5:.2f}"
            rows.append([way.replace("|", "then"), f"**{mean}**" if way == best else mean, error])
        types = ", ".join(MIXES.get(setting, (setting,)))
        lines += ["", f"## {setting} ({types})", "", markdown_table(["way", "dB", "gain"], rows)]
        print(lines[-1], flush=True)
    if options.output:
        write_text(options.output, "\n".join(lines) + "\n", overwrite=True)


if __name__ == "__main__":
    main()
