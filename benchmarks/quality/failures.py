"""Where a model fails: of many damages and photographs the pictures on which it helps least, to look at.

    python benchmarks/quality/failures.py [--model NAME_OR_FILE] [--output SHEET.jpg]

The photographs come with scikit-image (Chelsea the cat, coffee, the astronaut Eileen Collins, a rocket: CC0 or public
domain), so that the sheet may be shown. Nothing is picked by hand: of each damage the picture with the smallest gain in
PSNR is taken, and of these the worst are drawn, with the undamaged picture beside them. Prints all of them.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from skimage import data

import moir
from moir import degrade
from moir.degrade.severity import LEVELS
from moir.metrics import psnr
from moir.picture import from_array, from_pil, write

SIDE, LABEL, GAP = 256, 32, 6
PHOTOGRAPHS = {
    "cat": (data.chelsea, (20, 100)),
    "coffee": (data.coffee, (60, 180)),
    "astronaut": (data.astronaut, (0, 90)),
    "rocket": (data.rocket, (90, 200)),
}
DAMAGES = (
    *(f"{type_}={level}" for type_ in ("noise", "rain", "haze", "snow", "blur", "jpeg") for level in LEVELS),
    *(f"lowlight={level}" for level in LEVELS),
    *(f"{mix}={level}" for mix in degrade.MIXES for level in ("medium", "outside")),
    "clean",
)


@dataclass(frozen=True)
class Case:
    """One damaged photograph and what became of it; pictures (3, H, W), PSNR in dB."""

    damage: str
    photograph: str
    clean: torch.Tensor
    damaged: torch.Tensor
    restored: torch.Tensor
    before: float
    after: float
    expert: str

    @property
    def gain(self) -> float:
        """What was gained, dB; of an undamaged picture, how far below 50 dB it now is."""
        return self.after - min(self.before, 50.0)


def cases(restorer: moir.Restorer, damage: str) -> list[Case]:
    """All photographs with one damage."""
    found = []
    for number, (name, (photograph, (top, left))) in enumerate(PHOTOGRAPHS.items()):
        clean = from_array(photograph()[top : top + SIDE, left : left + SIDE]).rgb
        damaged = clean
        if damage != "clean":
            generator = torch.Generator().manual_seed(100 * DAMAGES.index(damage) + number)
            records = degrade.parse(damage).sample(generator)
            damaged = degrade.quantise(degrade.apply(clean[None], [records]))[0]
        result = restorer(damaged)
        before, after = (psnr(x[None], clean[None]).item() for x in (damaged, result.tensor))
        expert = f"{result.expert} ({result.granularity})"
        found.append(Case(damage, name, clean, damaged, result.tensor, before, after, expert))
    return found


def sheet(worst: list[Case], columns: int = 2) -> Image.Image:
    """Damaged, restored and undamaged, side by side, the worst first."""
    width, height = 3 * SIDE + 2 * 2, SIDE + LABEL
    rows = -(-len(worst) // columns)
    page = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    pen = ImageDraw.Draw(page)
    for number, case in enumerate(worst):
        x, y = number % columns * (width + GAP), number // columns * (height + GAP)
        words = f"{case.damage}, {case.photograph}: {case.before:.1f} to {case.after:.1f} dB by {case.expert}"
        pen.text((x, y + 2), words, fill="black")
        pen.text((x, y + 16), "damaged, restored, undamaged", fill="grey")
        for place, tensor in enumerate((case.damaged, case.restored, case.clean)):
            pixels = (tensor.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            page.paste(Image.fromarray(np.ascontiguousarray(pixels)), (x + place * (SIDE + 2), y + LABEL))
    return page


def main() -> None:
    """Restore everything, print the worst of each damage, draw the worst of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a shipped model or a .safetensors file; default: the shipped default")
    parser.add_argument("--show", type=int, default=8, help="how many are drawn; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("docs/gallery/failures.jpg"))
    options = parser.parse_args()
    restorer = moir.load(options.model)
    found = [case for damage in DAMAGES for case in cases(restorer, damage)]
    worst = [min((c for c in found if c.damage == damage), key=lambda case: case.gain) for damage in DAMAGES]
    worst.sort(key=lambda case: case.gain)
    table = Table("damage", "photograph", "expert", "before", "after", "gain", box=None)
    for case in worst:
        figures = (f"{case.before:.2f}", f"{case.after:.2f}", f"{case.gain:+.2f}")
        table.add_row(case.damage, case.photograph, case.expert, *figures)
    console = Console(width=120)
    console.print(table)
    lost = sum(case.gain < -0.5 for case in found)
    console.print(
        f"{lost} of {len(found)} pictures lost more than 0.5 dB ({restorer.name}, {restorer.engine.precision})."
    )
    write(from_pil(sheet(worst[: options.show])), options.output, overwrite=True, quality=88)
    console.print(str(options.output))


if __name__ == "__main__":
    main()
