"""Damage photographs in ways that the network must find out for itself, restore them, and show what was gained.

The photographs come with scikit-image: Chelsea the cat (Stefan van der Walt, CC0), a cup of coffee (Rachel Michetti,
CC0), the astronaut Eileen Collins (NASA, public domain). Run by `make demo`; the picture is written to demo_output/.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from skimage import data

import moir
from moir import degrade
from moir.metrics import psnr
from moir.picture import from_array, from_pil, write

SEED = 2026
SIDE = 296

# Title, photograph, corner of the part that is used, damage.
SCENES = (
    ("noise", data.chelsea, (0, 90), "noise=30"),
    ("rain", data.astronaut, (0, 90), "rain:streaks=heavy"),
    ("haze", data.coffee, (60, 180), "haze:landscape=medium"),
    ("JPEG, quality 12", data.chelsea, (0, 90), "jpeg=12"),
    ("darkness", data.coffee, (60, 180), "lowlight:exposure=heavy"),
    ("snow", data.astronaut, (0, 90), "snow=heavy"),
    ("haze, noise and rain", data.chelsea, (0, 90), "H-N-R=light"),
)


def main() -> None:
    """Restore every scene with the shipped model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output/before_after.jpg"))
    parser.add_argument("--model", help="a shipped model or a .safetensors file; default: the shipped default")
    options = parser.parse_args()

    restorer = moir.load(options.model)
    table = Table("damage", "what was found", "expert", "before", "after", "gain", box=None, pad_edge=False)
    tiles = []
    seconds = 0.0
    for number, (title, photograph, (top, left), spec) in enumerate(SCENES):
        clean = from_array(photograph()[top : top + SIDE, left : left + SIDE]).rgb[None]
        generator = torch.Generator().manual_seed(SEED + number)
        damaged = degrade.quantise(degrade.apply(clean, [degrade.parse(spec).sample(generator)]))
        result = restorer(damaged[0])
        restored = result.tensor[None]
        before, after = (psnr(x, clean).item() for x in (damaged, restored))
        found = [f"{f.degree} {f.type} {f.probability:.0%}" for f in result.estimate if f.probability >= 0.5]
        table.add_row(
            title,
            ", ".join(found) or "nothing",
            f"{result.expert} ({result.granularity})",
            f"{before:.2f} dB",
            f"{after:.2f} dB",
            f"{after - before:+.2f} dB",
        )
        tiles.append((f"{title}: {before:.1f} dB to {after:.1f} dB", damaged[0], restored[0]))
        seconds += result.seconds
    engine = restorer.engine
    Console(width=120).print(table)
    print(f"\nPSNR against the clean photograph, {len(SCENES)} pictures of {SIDE}x{SIDE} px, seed {SEED}.")
    print(f"Model {restorer.name}, {engine.device}, {engine.precision}; {seconds / len(SCENES):.2f} s per picture.")
    write(from_pil(sheet(tiles)), options.output, overwrite=True, quality=90)
    print(f"Before and after, side by side: {options.output.resolve()}")


def sheet(tiles: list[tuple[str, torch.Tensor, torch.Tensor]], columns: int = 2, label: int = 20) -> Image.Image:
    """Pairs of before and after under their titles."""
    gap, width, height = 8, 2 * SIDE + 2, SIDE + label
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    pen = ImageDraw.Draw(page)
    for number, (title, before, after) in enumerate(tiles):
        x, y = number % columns * (width + gap), number // columns * (height + gap)
        pen.text((x, y + 4), title, fill="black")
        for place, tensor in enumerate((before, after)):
            pixels = (tensor.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            page.paste(Image.fromarray(pixels), (x + place * (SIDE + 2), y + label))
    return page


if __name__ == "__main__":
    main()
