"""What is wrong with pictures, and where: one account per file, and a map of the damage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from moir.base.errors import InvalidValueError
from moir.base.names import TYPES
from moir.findings import SEEN, Inspection
from moir.networks.base import select
from moir.picture import Picture, from_pil, prepare_colour, read, write
from moir.restore import Restorer

CELLS = 16
"""At most so many cells along the longer side."""

SMALLEST_CELL = 64
"""Side of the smallest cell, pixels: what an estimate needs to see."""

TOGETHER = 32
"""Cells that are looked at in one go."""

COLOURS = {
    "noise": (230, 60, 60), "rain": (60, 120, 230), "haze": (240, 200, 40), "snow": (120, 220, 240),
    "blur": (190, 90, 210), "lowlight": (50, 60, 130), "jpeg": (60, 180, 90),
}  # fmt: skip
"""Colour of each degradation type on a map, RGB."""


@dataclass(frozen=True)
class DamageMap:
    """Where which damage was seen.

    Attributes:
        presence: (rows, columns, 7), probability of each type (in the order of ``moir.base.names.TYPES``) in each cell,
            looked at as if it were a picture of its own.
        cell: Height and width of a cell, pixels; those of the last row and column reach back over their neighbours.
    """

    presence: torch.Tensor
    cell: tuple[int, int]


def inspect_file(
    restorer: Restorer, path: Path, map_path: Path | None = None, *, overwrite: bool = False
) -> Inspection:
    """Inspect one file, and draw its map if a path is given.

    Raises:
        PictureError: The file cannot be read.
        OutputExistsError: The map exists and ``overwrite`` is false.
        InvalidValueError: The model does not estimate what is wrong, so there is no map.
    """
    picture = read(path)
    found = restorer.inspect(picture)
    if map_path is not None:
        write(from_pil(draw_map(picture, damage_map(restorer, picture))), map_path, overwrite=overwrite)
    return found


def damage_map(restorer: Restorer, picture: Picture) -> DamageMap:
    """Look at every cell of a picture by itself.

    Raises:
        InvalidValueError: The model does not estimate what is wrong.
    """
    if not restorer.engine.network.estimates:
        raise InvalidValueError(
            f"{restorer.name} does not estimate what is wrong, so there is no map; use another model"
        )
    x = prepare_colour(picture)
    height, width = x.shape[-2:]
    side = max(SMALLEST_CELL, -(-max(height, width) // (8 * CELLS)) * 8)
    tall, wide = min(side, height), min(side, width)
    tops, lefts = _starts(height, tall), _starts(width, wide)
    cells = [x[:, top : top + tall, left : left + wide] for top in tops for left in lefts]
    found: list[torch.Tensor] = []
    for first in range(0, len(cells), TOGETHER):
        context = restorer.engine.analyse(torch.stack(cells[first : first + TOGETHER]))
        found.append(torch.sigmoid(select(context, slice(None))["presence"].float()).cpu())
    return DamageMap(torch.cat(found).view(len(tops), len(lefts), len(TYPES)), (tall, wide))


def draw_map(picture: Picture, found: DamageMap) -> Image.Image:
    """The picture, greyed, each cell tinted with the colour of what it shows most of, and a legend below."""
    shown = Image.fromarray(picture.to_numpy(8)).convert("RGB")
    scale = min(1.0, 1600 / max(shown.size))
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    shown = shown.convert("L").convert("RGB").resize(size, Image.Resampling.LANCZOS)
    rows, columns, _ = found.presence.shape
    tint = Image.new("RGBA", (columns, rows), (0, 0, 0, 0))
    for row in range(rows):
        for column in range(columns):
            probability, number = found.presence[row, column].max(0)
            if probability >= SEEN:
                tint.putpixel((column, row), (*COLOURS[TYPES[int(number)]], round(190 * (float(probability) - 0.2))))
    shown.paste(tint.resize(size, Image.Resampling.NEAREST), mask=tint.resize(size, Image.Resampling.NEAREST))
    seen = [t for t in TYPES if bool((found.presence.argmax(-1) == TYPES.index(t)).logical_and(
        found.presence.amax(-1) >= SEEN).any())]  # fmt: skip
    return _with_legend(shown, seen)


def _with_legend(shown: Image.Image, types: list[str]) -> Image.Image:
    line = 18
    entries: list[tuple[str, Any]] = [(t, COLOURS[t]) for t in types] or [("no damage seen", (128, 128, 128))]
    across = max(1, shown.width // 100)
    lines = -(-len(entries) // across)
    sheet = Image.new("RGB", (max(shown.width, 110), shown.height + lines * line + 6), "white")
    sheet.paste(shown)
    draw = ImageDraw.Draw(sheet)
    for number, (name, colour) in enumerate(entries):
        left, top = 4 + number % across * 100, shown.height + 4 + number // across * line
        draw.rectangle((left, top, left + 12, top + 12), fill=colour)
        draw.text((left + 16, top), name, fill="black")
    return sheet


def _starts(length: int, cell: int) -> list[int]:
    """Where cells begin: side by side, the last one flush with the edge."""
    count = -(-length // cell)
    return [min(number * cell, length - cell) for number in range(count)]
