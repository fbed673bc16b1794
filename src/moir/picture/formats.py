"""Which picture formats moir knows: how their files begin, how they are named, and what each can hold."""

from dataclasses import dataclass
from pathlib import Path

from PIL import features

DEFAULT_MAX_PIXELS = 500_000_000
"""Pictures that declare more pixels than this are refused before anything is decoded."""


@dataclass(frozen=True)
class FileFormat:
    """What moir needs to know of one format.

    Attributes:
        name: The name PIL uses.
        suffixes: Lower-case suffixes with dot; empty where a suffix would be misleading.
        writable: Whether moir writes it.
        deep: Whether 16 bits per channel can be written.
        alpha: Whether an alpha channel can be written.
        metadata: Whether EXIF, ICC and XMP can be written.
        max_side: The largest width or height the format can hold.
    """

    name: str
    suffixes: tuple[str, ...]
    writable: bool = True
    deep: bool = False
    alpha: bool = True
    metadata: bool = True
    max_side: int = 2**31 - 1


_ALL = (
    FileFormat("JPEG", (".jpg", ".jpeg"), alpha=False, max_side=65500),
    FileFormat("PNG", (".png",), deep=True),
    FileFormat("WEBP", (".webp",), max_side=16383),
    FileFormat("TIFF", (".tif", ".tiff"), deep=True),
    FileFormat("BMP", (".bmp",), alpha=False, metadata=False),
    FileFormat("GIF", (".gif",), writable=False),
    FileFormat("AVIF", (".avif",), max_side=65536),
)

FORMATS: dict[str, FileFormat] = {entry.name: entry for entry in _ALL if entry.name != "AVIF" or features.check("avif")}
"""The formats of this installation by name; AVIF only where Pillow was built with it."""

READABLE_SUFFIXES: frozenset[str] = frozenset(s for entry in FORMATS.values() for s in entry.suffixes)
"""Lower-case suffixes (with dot) of files that :func:`moir.picture.read` is expected to read."""

WRITABLE_SUFFIXES: frozenset[str] = frozenset(s for entry in FORMATS.values() if entry.writable for s in entry.suffixes)
"""Lower-case suffixes (with dot) that :func:`moir.picture.write` accepts."""


class FirstFrameWarning(UserWarning):
    """The file holds several frames or pages, of which only the first was read."""


def is_picture_name(path: str | Path) -> bool:
    """Return whether a file of this name is expected to be a readable picture; the file is not looked at.

    Examples:
        >>> is_picture_name("holiday/IMG_0001.JPG"), is_picture_name("notes.txt")
        (True, False)
    """
    return Path(path).suffix.lower() in READABLE_SUFFIXES


def format_of_suffix(path: str | Path) -> FileFormat | None:
    """Return the format that moir writes for the suffix of ``path``, or None."""
    suffix = Path(path).suffix.lower()
    return next((f for f in FORMATS.values() if f.writable and suffix in f.suffixes), None)


def sniff(data: bytes) -> str | None:
    """Return the name of the format that ``data`` begins like, or None.

    The content decides, never the suffix: a PNG named ``.jpg`` is common. Names that are not in ``FORMATS`` are
    returned too where a better message than "not a picture" can be given: ``"AVIF"``, ``"HEIC"``, ``"BigTIFF"``.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if data.startswith((b"II+\0", b"MM\0+")):
        return "BigTIFF"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # Two letters alone would take any text that begins with "BM" for a picture: ask for a known header size too.
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(len(data), max(16, int.from_bytes(data[:4], "big")), 128)]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")):
            return "HEIC"
    return None
