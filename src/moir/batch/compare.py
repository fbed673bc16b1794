"""Before and after, side by side, in one picture."""

from pathlib import Path

from PIL import Image

from moir.picture import Picture, from_pil, write

LARGEST = 2048
"""Longest side of each half, pixels; larger pictures are shrunk."""

GAP = 8


def compare_path(output: Path) -> Path:
    """Where the comparison of a result lies: NAME_compare.png beside it."""
    return output.with_name(f"{output.stem}_compare.png")


def write_comparison(before: Picture, after: Picture, path: Path, *, overwrite: bool = False) -> None:
    """Write input and result side by side, with a white gap, on white where they are transparent.

    Where the result is larger, the input is enlarged to its size.
    """
    halves = [_flat(picture) for picture in (before, after)]
    width, height = halves[1].size
    halves[0] = halves[0].resize((width, height), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (2 * width + GAP, height), "white")
    sheet.paste(halves[0], (0, 0))
    sheet.paste(halves[1], (width + GAP, 0))
    write(from_pil(sheet), path, overwrite=overwrite)


def _flat(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture.to_numpy(8)).convert("RGBA")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    return flat.convert("RGB")
