"""The options of a request, from text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from moir.base.errors import InvalidValueError
from moir.base.names import TASKS, check_name
from moir.picture.formats import FORMATS

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}

FORMAT_WORDS = tuple(s[1:] for entry in FORMATS.values() if entry.writable for s in entry.suffixes)
"""What the option ``format`` may be: suffixes without the dot."""


@dataclass(frozen=True)
class FileOptions:
    """How the answer's picture is written: ``format`` (a suffix; None: as it came) and ``quality`` (1..100)."""

    format: str | None = None
    quality: int | None = None

    NAMES = ("format", "quality")

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """Read from a request.

        Raises:
            UnknownNameError: A format that cannot be written.
            InvalidValueError: The quality is no whole number from 1 to 100.
        """
        word = options.get("format", "").strip().lower().removeprefix(".")
        quality = options.get("quality", "").strip()
        if quality and not (quality.isdecimal() and 1 <= int(quality) <= 100):
            raise InvalidValueError(f"quality {quality[:20]!r} is no whole number from 1 to 100")
        return cls(check_name(word, FORMAT_WORDS, "format") if word else None, int(quality) if quality else None)

    def output_name(self, name: str, source_format: str, tag: str) -> str:
        """The answer's file name: the input's with ``_TAG``; its suffix if that is true and can be written, else PNG's.

        Examples:
            >>> FileOptions().output_name("cat.JPG", "JPEG", "restored"), FileOptions().output_name("a", "GIF", "x")
            ('cat_restored.JPG', 'a_x.png')
        """
        path = PurePosixPath(name)
        if self.format:
            suffix = "." + self.format
        else:
            entry = FORMATS.get(source_format)
            writable = entry.suffixes if entry and entry.writable else (".png",)
            suffix = path.suffix if path.suffix.lower() in writable else writable[0]
        return f"{path.stem}_{tag}{suffix}"


@dataclass(frozen=True)
class RestoreOptions:
    """What ``/v1/restore`` is told.

    Attributes:
        model: Name of an offered model; None: the default.
        task: What to remove; None: whatever is found.
        strength: How much of the change to apply, 0..1.
        file: How the answer is written.
    """

    model: str | None
    task: tuple[str, ...] | None
    strength: float
    file: FileOptions

    NAMES = ("model", "task", "strength", *FileOptions.NAMES)

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """Read from a request.

        Raises:
            UnknownNameError: An unknown task or format.
            InvalidValueError: ``strength`` or ``quality`` is no number in its range.
        """
        tasks = [word for part in options.get("task", "").split(",") if (word := part.strip())]
        word = options.get("strength", "").strip()
        try:
            strength = float(word) if word else 1.0
        except ValueError:
            strength = float("nan")
        if not 0 <= strength <= 1:
            raise InvalidValueError(f"strength {word[:20]!r} is no number from 0 (the input) to 1 (all of the change)")
        return cls(
            options.get("model") or None,
            tuple(sorted({check_name(task, TASKS, "task") for task in tasks})) or None,
            strength,
            FileOptions.of(options),
        )
