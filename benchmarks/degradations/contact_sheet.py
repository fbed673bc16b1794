"""Makes docs/gallery/degradations.jpg: every degradation at every degree, on photographs that may be copied.

Rows are the seven degradations and two of the paper's mixes; columns are the clean picture, the three degrees and the
out-of-distribution range. The photographs come with scikit-image: astronaut (NASA, public domain), coffee and chelsea
(CC0). The seed is fixed: the same code gives the same sheet.

    python benchmarks/degradations/contact_sheet.py [--output FILE] [--seed N] [--kinds]
    python benchmarks/degradations/contact_sheet.py --real FOLDER --output FILE

The second form sets real photographs (FOLDER/rain/*.jpg and so on) above what each kind of that degradation makes,
whole and as a part at three times its size: the way in which the ranges were judged.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from moir.degrade import ORDER, apply, degradation, parse, quantise

LEVELS = ("light", "medium", "heavy", "outside")
MIXED = ("H-R", "LL-H-N-S")
WIDTH, HEIGHT, GAP, MARGIN, HEAD = 224, 140, 2, 78, 22
DEFAULT = Path(__file__).parents[2] / "docs/gallery/degradations.jpg"


def photograph(name: str) -> torch.Tensor:
    """The middle of a photograph at the size of a cell, (1, 3, HEIGHT, WIDTH)."""
    image = Image.fromarray(getattr(data, name)())
    scale = max(WIDTH / image.width, HEIGHT / image.height) * 1.25
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - WIDTH) // 2, (image.height - HEIGHT) // 3
    image = image.crop((left, top, left + WIDTH, top + HEIGHT))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(HEIGHT, WIDTH, 3)
    return pixels.permute(2, 0, 1)[None].float() / 255


def to_image(picture: torch.Tensor) -> Image.Image:
    """A picture (1, 3, H, W) for Pillow."""
    return Image.fromarray((picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def sheet(specs: list[str], seed: int) -> Image.Image:
    """One row for each specification, labelled."""
    image = Image.new("RGB", (MARGIN + (len(LEVELS) + 1) * (WIDTH + GAP), HEAD + len(specs) * (HEIGHT + GAP)), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for column, level in enumerate(("clean", *LEVELS)):
        pen.text((MARGIN + column * (WIDTH + GAP) + 4, 2), level, "black", font)
    for row, spec in enumerate(specs):
        top = HEAD + row * (HEIGHT + GAP)
        pen.text((4, top + 4), spec.replace(":", "\n").replace("LL-", "LL-\n"), "black", font)
        clean = photograph(("astronaut", "coffee", "chelsea")[row % 3])
        cells = [clean]
        for level in LEVELS:
            # One seed for the row: the same kind and direction of damage, from mild to bad.
            params = parse(f"{spec}={level}").sample(torch.Generator().manual_seed(seed + 100 * row))
            cells.append(quantise(apply(clean, [params])))
        for column, cell in enumerate(cells):
            image.paste(to_image(cell), (MARGIN + column * (WIDTH + GAP), top))
    return image


def beside_real(folder: Path, seed: int) -> Image.Image:
    """For each type with a subfolder: a row of real photographs, then a row for each kind, from light to heavy."""
    rows: list[tuple[str, list[Image.Image]]] = []
    for type_ in ORDER:
        found = sorted(p for p in (folder / type_).glob("*") if p.suffix.lower() in (".jpg", ".png"))[:6]
        if not found:
            continue
        rows.append((f"real\n{type_}", [Image.open(path).convert("RGB") for path in found]))
        for kind in degradation(type_).kinds:
            if kind == "mask":
                continue
            cells = []
            for column, level in enumerate(("light", "medium", "heavy") * 2):
                generator = torch.Generator().manual_seed(seed + column)
                params = parse(f"{type_}:{kind}={level}").sample(generator)
                photo = getattr(data, ("astronaut", "coffee", "chelsea")[(column + column // 3) % 3])()
                clean = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
                cells.append(to_image(quantise(apply(clean, [params]))))
            rows.append((f"{type_}\n{kind}", cells))
    side = 150
    image = Image.new("RGB", (MARGIN + 6 * (side + GAP), len(rows) * (2 * side + GAP)), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for row, (label, cells) in enumerate(rows):
        top = row * (2 * side + GAP)
        pen.text((4, top + 4), label, "black", font)
        for column, cell in enumerate(cells):
            left, (width, height) = MARGIN + column * (side + GAP), cell.size
            part = cell.crop((width // 2 - 25, height // 3 - 25, width // 2 + 25, height // 3 + 25))
            image.paste(part.resize((side, side), Image.Resampling.NEAREST), (left, top + side))
            cell.thumbnail((side, side))
            image.paste(cell, (left, top))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the contact sheet of all degradations.")
    parser.add_argument("--output", type=Path, default=DEFAULT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", action="store_true", help="one row for each kind of each degradation instead")
    parser.add_argument("--real", type=Path, help="folder of real photographs, one subfolder for each type")
    arguments = parser.parse_args()
    if arguments.real and arguments.output == DEFAULT:
        parser.error("--real makes a sheet of its own; give it an --output")
    torch.set_num_threads(1)
    kinds = [f"{type_}:{kind}" for type_ in ORDER for kind in degradation(type_).kinds if kind != "mask"]
    if arguments.real:
        image = beside_real(arguments.real, arguments.seed)
    else:
        image = sheet(kinds if arguments.kinds else [*ORDER, *MIXED], arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    image.save(arguments.output, quality=82, optimize=True)
    print(f"{arguments.output}: {image.width} x {image.height}, {arguments.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
