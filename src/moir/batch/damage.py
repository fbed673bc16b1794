"""Damaging a file on purpose, with a record from which the damage can be made again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from moir import degrade
from moir.base.files import check_absent, write_text
from moir.picture import prepare_colour, read, write


def record_path(output: Path) -> Path:
    """Where the parameters of a damaged picture lie: NAME.json beside it."""
    return output.with_suffix(".json")


def seed_of(name: str, seed: int) -> int:
    """The seed of one picture: a function of the run's seed and the file's name, so of no order."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def damage_file(
    source: Path,
    output: Path,
    request: degrade.Request,
    seed: int,
    *,
    snow_masks: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Damage one file and write the result and its record.

    Returns:
        ``{"width", "height", "seed", "damage": [parameters, ...]}``, which is also what the record holds.
    """
    record = check_absent(record_path(output), overwrite=overwrite)
    picture = read(source)
    params = request.sample(torch.Generator().manual_seed(seed_of(source.name, seed)), snow_masks=snow_masks)
    damaged = degrade.apply(prepare_colour(picture)[None], [params])[0]
    facts = {
        "width": picture.width,
        "height": picture.height,
        "seed": seed,
        "damage": [p.to_json() for p in params],
    }
    write(picture.with_rgb(damaged), output, overwrite=overwrite)
    write_text(record, json.dumps({"input": source.name, **facts}, indent=1) + "\n", overwrite=overwrite)
    return facts
