"""Picture sheets: input, what each method made of it, target, and where each is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from moir.base.errors import InvalidValueError, TensorShapeError
from moir.base.files import atomic_path
from moir.evaluation.records import Evaluation

CELL = 256
"""Largest side of the window that is shown of each picture, pixels. One pixel of a picture is one of the sheet."""

ERROR_SCALES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_GAP, _LABEL, _TITLE = 8, 34, 30
_BACKGROUND, _TEXT, _SOFT = (255, 255, 255), (25, 30, 38), (105, 112, 122)
# From no error to the largest: brightness rises throughout, so the map reads in grey too.
_RAMP = np.array([[8, 8, 20], [72, 20, 105], [165, 45, 95], [232, 110, 45], [250, 190, 60], [255, 255, 230]], float)
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SheetRow:
    """The pictures of one row of a sheet; each (3, H, W), float, [0, 1].

    Attributes:
        image: Name of the picture, as in the scores.
        input: The damaged picture; it may be smaller than the target (it is enlarged by repeating pixels), or None.
        outputs: By method, the names as in the evaluations; of the target's size.
        target: The undamaged picture.
    """

    image: str
    input: torch.Tensor | None
    outputs: Mapping[str, torch.Tensor]
    target: torch.Tensor


def draw_sheet(
    setting: str,
    rows: Iterable[SheetRow],
    path: Path,
    *,
    evaluations: Sequence[Evaluation] = (),
    overwrite: bool = False,
) -> Path:
    """Draw the sheet of one setting.

    Each picture takes two lines: the pictures, and below each the absolute error against the target (the largest of
    the three channels), on a scale that is printed beside it and shared by all maps of the line. Of large pictures the
    central window of 256 pixels is shown, never a shrunken picture: shrinking hides noise and artefacts.

    Args:
        setting: Its name, for the title.
        rows: The pictures.
        path: ``.jpg`` or ``.png``.
        evaluations: Where the PSNR for the labels is looked up, by setting, method and picture.
        overwrite: Replace a file that is there.

    Returns:
        The path.

    Raises:
        TensorShapeError: An output is not of its target's size, or the target is not (3, H, W).
        InvalidValueError: There are no rows, or the name ends on neither ``.jpg`` nor ``.png``.
    """
    rows = list(rows)
    if not rows:
        raise InvalidValueError(f"no pictures for the sheet of {setting!r}")
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InvalidValueError(f"a sheet is written as .jpg or .png, not {path.suffix!r}: {path}")
    # One label, one protocol: the first that the setting was scored by.
    protocol = next((one.protocol for one in evaluations if any(s.setting == setting for s in one.images)), None)
    here = [one for one in evaluations if one.protocol == protocol]
    scores = {(one.method, s.image): s.metrics for one in here for s in one.images if s.setting == setting}
    strips = [_strip(row, scores) for row in rows]
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, _TITLE + _GAP + sum(strip.height for strip in strips)), _BACKGROUND)
    title = f"{setting}   PSNR under protocol {protocol}" if protocol else setting
    ImageDraw.Draw(sheet).text((_GAP, _GAP), title, fill=_TEXT, font=_font(16))
    top = _TITLE + _GAP
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    with atomic_path(path, overwrite=overwrite) as temporary:
        # Chroma at full size: colour noise and halos are what one looks for.
        options: dict[str, Any] = {} if path.suffix.lower() == ".png" else {"quality": 92, "subsampling": 0}
        sheet.save(temporary, **options)
    return path


def _strip(row: SheetRow, scores: Mapping[tuple[str, str], Mapping[str, float]]) -> Image.Image:
    target = row.target
    if target.dim() != 3 or target.shape[0] != 3:
        raise TensorShapeError(f"{row.image}: expected a target (3, H, W), got {tuple(target.shape)}")
    pictures = {"input": _enlarged(row.input, target)} if row.input is not None else {}
    for name, output in row.outputs.items():
        if output.shape != target.shape:
            raise TensorShapeError(
                f"{row.image}: the output of {name!r} is {tuple(output.shape)}, its target {tuple(target.shape)}"
            )
        pictures[name] = output
    windows = {name: _window(picture) for name, picture in pictures.items()}
    wanted = _window(target)
    errors = {name: np.abs(window - wanted).max(axis=2) for name, window in windows.items()}
    top = _scale(list(errors.values()))
    height, width = wanted.shape[:2]
    step = max(width, 150) + _GAP  # room for a label beside a narrow picture
    strip = Image.new(
        "RGB", (_GAP + step * (len(windows) + 1), _LABEL + height + _GAP + height + 2 * _GAP), _BACKGROUND
    )
    draw = ImageDraw.Draw(strip)
    found = next((scores[name, row.image] for name in row.outputs if (name, row.image) in scores), {})
    psnrs = {"input": found.get("input_psnr")} | {
        name: scores.get((name, row.image), {}).get("psnr") for name in row.outputs
    }
    for place, (name, window) in enumerate(windows.items()):
        left = _GAP + place * step
        value = psnrs.get(name)
        _label(draw, left, step - _GAP, name, "" if value is None else f"{value:.2f} dB")
        strip.paste(Image.fromarray(_bytes(window)), (left, _LABEL))
        strip.paste(Image.fromarray(_heat(errors[name] / top)), (left, _LABEL + height + _GAP))
    left = _GAP + len(windows) * step
    whole = f"{target.shape[2]}x{target.shape[1]}"
    shown = "" if (height, width) == tuple(target.shape[1:]) else f", centre {width}x{height} of {whole}"
    _label(draw, left, step - _GAP, "target", f"{row.image}{shown}")
    strip.paste(Image.fromarray(_bytes(wanted)), (left, _LABEL))
    _colour_bar(strip, left, _LABEL + height + _GAP, height, top)
    return strip


def _enlarged(picture: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if picture.shape == target.shape:
        return picture
    return torch.nn.functional.interpolate(picture[None], size=tuple(target.shape[1:]), mode="nearest")[0]


def _window(picture: torch.Tensor) -> npt.NDArray[np.float32]:
    """The central window, (H, W, 3), clamped; a NaN, which no score hides, becomes black."""
    height, width = picture.shape[1:]
    top, left = max(0, height - CELL) // 2, max(0, width - CELL) // 2
    part = picture[:, top : top + CELL, left : left + CELL].detach().cpu().float()
    return torch.nan_to_num(part, nan=0.0).clamp(0, 1).permute(1, 2, 0).numpy()


def _scale(errors: Sequence[npt.NDArray[np.float32]]) -> float:
    """The smallest round scale that holds 99% of the pixels of every map."""
    largest = max((float(np.quantile(error, 0.99)) for error in errors), default=0.0)
    return next(scale for scale in ERROR_SCALES if largest <= scale)


def _heat(values: npt.NDArray[np.floating]) -> Pixels:
    place = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    steps = np.arange(len(_RAMP))
    return np.stack([np.interp(place, steps, _RAMP[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


def _bytes(window: npt.NDArray[np.float32]) -> Pixels:
    return np.floor(window * 255 + 0.5).astype(np.uint8)


def _colour_bar(strip: Image.Image, left: int, top: int, height: int, scale: float) -> None:
    draw = ImageDraw.Draw(strip)
    length = max(24, min(height - 44, 160))
    bar = _heat(np.linspace(1, 0, length)[:, None].repeat(14, axis=1))
    strip.paste(Image.fromarray(bar), (left, top + 20))
    draw.text((left, top), "absolute error", fill=_TEXT, font=_font(12))
    for text, y in ((f"{scale:g} and above ({scale * 255:.0f} of 255)", 0), ("0", length - 12)):
        draw.text((left + 20, top + 20 + y), text, fill=_SOFT, font=_font(11))


def _label(draw: ImageDraw.ImageDraw, left: int, width: int, first: str, second: str) -> None:
    for text, y, colour, size in ((first, 0, _TEXT, 13), (second, 16, _SOFT, 11)):
        font = _font(size)
        while text and draw.textlength(text, font=font) > width:
            text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
        draw.text((left, y), text, fill=colour, font=font)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
