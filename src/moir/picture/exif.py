"""EXIF blocks: find the orientation, set it straight in place, and move fields between EXIF and TIFF.

An EXIF block is a small TIFF structure. It is patched in place rather than rebuilt where that is possible, so that all
other fields stay byte for byte, maker notes with their absolute offsets included.
"""

import logging
import struct

from moir.picture.tiff_tags import (
    LONG,
    RATIONAL,
    SHORT,
    Directory,
    Fields,
    Order,
    build_directory,
    byte_order,
    first_directory,
    read_directory,
)

logger = logging.getLogger(__name__)

PREFIX = b"Exif\0\0"
ORIENTATION = 274
_RESOLUTIONS = (282, 283)
RESOLUTION = frozenset((*_RESOLUTIONS, 296))
_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROPERABILITY = 34665, 34853, 40965
_SUB_DIRECTORIES = (_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROPERABILITY)
_LARGEST_FIELD = 1 << 20  # many entries may point at the same bytes; this bounds what they add up to

# Tags that say how pixels are stored, and which only their own file can mean.
PIXEL_TAGS = frozenset((256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 292, 293, 301, 317,
                        320, 322, 323, 324, 325, 332, 333, 334, 338, 339, 340, 341, 347, *range(512, 522), 529, 530,
                        531, 532))  # fmt: skip
# Kept elsewhere (XMP, ICC), or descriptions of other pixels: layers, previews, further directories, raw data.
_NOT_FIELDS = PIXEL_TAGS | {254, 255, 330, 700, 34675, 34377, 37724, 50784, *range(50706, 50710)}


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation, 1 to 8; 1 if there is none or the block cannot be read."""
    if exif is None:
        return 1
    try:
        value = first_directory(_structure(exif)).number(ORIENTATION, 1)
    except ValueError:
        return 1
    return value if 1 <= value <= 8 else 1


def normalised(exif: bytes) -> bytes:
    """Return the block with the prefix that JPEG wants and WebP and PNG files may lack."""
    return exif if exif.startswith(PREFIX) else PREFIX + exif


def made_upright(exif: bytes) -> bytes:
    """Return the block for pixels that were turned upright: orientation 1, no thumbnail, sizes swapped if need be.

    A block that cannot be read is returned as it is: nobody else can find an orientation in it either.
    """
    data = bytearray(_structure(exif))
    try:
        main = first_directory(data)
        turned = main.number(ORIENTATION, 1) in (5, 6, 7, 8)
        if main.following:
            struct.pack_into(main.order + "I", data, main.link, 0)
        _overwrite(data, main, ORIENTATION, 1)
        if turned:
            _swap(data, main, 256, 257)
            if pointer := main.number(_EXIF_DIRECTORY):
                _swap(data, read_directory(data, pointer, main.order), 40962, 40963)
    except ValueError:
        logger.debug("EXIF block cannot be read; kept as it is")
        return normalised(exif)
    return PREFIX + bytes(data)


def enlarged(exif: bytes, times: int) -> bytes:
    """Return the block for pixels that are so many times finer: sizes and resolutions are multiplied.

    A number that does not fit into its field stays as it is, and so does a block that cannot be read.
    """
    data = bytearray(_structure(exif))
    try:
        main = first_directory(data)
        inner = read_directory(data, pointer, main.order) if (pointer := main.number(_EXIF_DIRECTORY)) else None
    except ValueError:
        logger.debug("EXIF block cannot be read; kept as it is")
        return normalised(exif)
    for tag in _RESOLUTIONS:
        _multiply_fraction(data, main, tag, times)
    for directory, tags in ((main, (256, 257)), (inner, (40962, 40963))):
        for tag in tags:
            if directory is not None and (value := directory.number(tag)):
                _overwrite(data, directory, tag, value * times)
    return PREFIX + bytes(data)


def from_tiff(data: bytes, main: Directory) -> bytes | None:
    """Gather the descriptive fields of a TIFF file's directory into an EXIF block; None if there are none."""
    fields = _fields(data, main)
    if not fields.keys() - RESOLUTION - {ORIENTATION}:
        return None
    header = (b"II*\0" if main.order == "<" else b"MM\0*") + struct.pack(main.order + "I", 8)
    return PREFIX + header + build_directory(fields, main.order, 8)


def for_tiff(exif: bytes) -> tuple[Order, Fields]:
    """Return the byte order and the fields to put into a TIFF file's directory.

    Raises:
        ValueError: The block cannot be read.
    """
    data = _structure(exif)
    return byte_order(data), _fields(data, first_directory(data))


def _fields(data: bytes, main: Directory, depth: int = 0) -> Fields:
    fields: Fields = {}
    for tag, entry in main.entries.items():
        if tag in _SUB_DIRECTORIES:
            # EXIF nests two deep at most; a directory that points at itself must not be followed for ever.
            pointer = main.number(tag)
            if pointer and depth < 2:
                try:
                    nested = _fields(data, read_directory(data, pointer, main.order), depth + 1)
                except ValueError:
                    logger.warning("EXIF directory %d is damaged; left out", tag)
                else:
                    if nested:
                        fields[tag] = nested
        elif tag in _NOT_FIELDS and depth == 0:
            continue
        elif len(entry.raw) > _LARGEST_FIELD:
            logger.warning("metadata tag %d is larger than 1 MiB; left out", tag)
        else:
            fields[tag] = entry
    return fields


def _structure(exif: bytes) -> bytes:
    return exif[len(PREFIX) :] if exif.startswith(PREFIX) else exif


def _overwrite(data: bytearray, directory: Directory, tag: int, value: int) -> None:
    entry = directory.entries.get(tag)
    if entry is None or entry.count != 1:
        return
    form = {SHORT: "H", LONG: "I"}.get(entry.kind, "B" if len(entry.raw) == 1 else "")
    if form and value < 256 ** len(entry.raw):
        struct.pack_into(directory.order + form, data, entry.position, value)


def _multiply_fraction(data: bytearray, directory: Directory, tag: int, times: int) -> None:
    entry = directory.entries.get(tag)
    if entry is None or entry.kind != RATIONAL or entry.count != 1:
        return
    numerator = struct.unpack_from(directory.order + "I", data, entry.position)[0] * times
    if numerator < 2**32:
        struct.pack_into(directory.order + "I", data, entry.position, numerator)


def _swap(data: bytearray, directory: Directory, first: int, second: int) -> None:
    values = directory.number(first), directory.number(second)
    if all(values) and max(values) < 2**16:
        _overwrite(data, directory, first, values[1])
        _overwrite(data, directory, second, values[0])
