"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from moir.base.errors import InvalidValueError

Inputs = Annotated[list[str], typer.Argument(help="Files, folders or globs.", show_default=False)]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file (for one input) or a folder; default: beside the input.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Also look into the folders of folders.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Pictures at a time.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout, and nothing else there.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A shipped model, a weights file (.safetensors, or a published .ckpt, .pth, .pt, .pkl), or hf://owner/repo.",
        show_default=False,
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps or auto.")]
Precision = Annotated[str | None, typer.Option("--precision", help="float32, bf16, fp16 or auto.")]
Tile = Annotated[str, typer.Option("--tile", help="Side of tiles in pixels, 'auto' (by free memory) or 'none'.")]


def tile_of(word: str) -> int | str | None:
    """What ``--tile`` means to :func:`moir.load`.

    Raises:
        InvalidValueError: Neither a number, ``auto`` nor ``none``.
    """
    if word in ("auto", "none"):
        return None if word == "none" else word
    if word.isdecimal():
        return int(word)
    raise InvalidValueError(f"tile {word!r} is not possible; give a number of pixels, 'auto' or 'none'")
