"""TIFF of 8 and 16 bits per channel, with all metadata.

Written here, in Deflate-compressed strips: PIL has no 16-bit colour, and it re-encodes EXIF fields, while moir copies
them. The file has the byte order of the EXIF block, so that its values can stay the bytes they are.
"""

import logging
import struct
import zlib

from moir.base.errors import PictureFormatError
from moir.picture import exif as exif_blocks
from moir.picture.picture import Picture
from moir.picture.read_tiff import ICC, XMP
from moir.picture.tiff_tags import (
    BYTE,
    LONG,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Entry,
    Fields,
    Order,
    build_directory,
    whole_numbers,
)

logger = logging.getLogger(__name__)

_STRIP_BYTES = 1 << 20
_DEFLATE, _HORIZONTAL_DIFFERENCES, _NOT_PREMULTIPLIED = 8, 2, 2


def tiff_bytes(picture: Picture) -> bytes:
    """Return the picture as a classic TIFF file of its own depth.

    Raises:
        PictureFormatError: It would be larger than the 4 GiB that classic TIFF can address.
    """
    order, fields = _exif_fields(picture)
    values = picture.to_numpy()
    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    rows = max(1, _STRIP_BYTES // max(1, values[0].nbytes))
    parts, offsets, lengths, position = [], [], [], 8
    for start in range(0, height, rows):
        strip = values[start : start + rows].copy()
        strip[:, 1:] -= values[start : start + rows, :-1]  # wraps around, as the format has it
        packed = zlib.compress(strip.astype(strip.dtype.newbyteorder(order)).tobytes(), 6)
        packed += b"\0" * (len(packed) % 2)
        parts.append(packed)
        offsets.append(position)
        lengths.append(len(packed))
        position += len(packed)
    if position >= 2**32:
        raise PictureFormatError("the picture is too large for TIFF (4 GiB); write PNG instead")

    def short(*numbers: int) -> Entry:
        return whole_numbers(order, SHORT, *numbers)

    tags: Fields = _resolution(picture, order)
    tags |= fields
    tags |= {
        256: whole_numbers(order, LONG, width),
        257: whole_numbers(order, LONG, height),
        258: short(*[picture.depth] * channels),
        259: short(_DEFLATE),
        262: short(1 if picture.grey else 2),
        273: whole_numbers(order, LONG, *offsets),
        274: short(1),
        277: short(channels),
        278: whole_numbers(order, LONG, rows),
        279: whole_numbers(order, LONG, *lengths),
        284: short(1),
        317: short(_HORIZONTAL_DIFFERENCES),
    }
    if picture.alpha is not None:
        tags[338] = short(_NOT_PREMULTIPLIED)
    if picture.icc:
        tags[ICC] = Entry(UNDEFINED, len(picture.icc), picture.icc)
    if picture.xmp:
        tags[XMP] = Entry(BYTE, len(picture.xmp), picture.xmp)
    try:
        directory = build_directory(tags, order, position)
    except ValueError as error:
        raise PictureFormatError(f"the picture is too large for TIFF ({error}); write PNG instead") from error
    start_of_file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", position)
    return b"".join([start_of_file, *parts, directory])


def _exif_fields(picture: Picture) -> tuple[Order, Fields]:
    if picture.exif:
        try:
            return exif_blocks.for_tiff(picture.exif)
        except ValueError as error:
            logger.warning("the EXIF data cannot be read (%s) and was not put into the TIFF file", error)
    return "<", {}


def _resolution(picture: Picture, order: Order) -> Fields:
    if picture.dpi is None:
        return {}
    pairs = [struct.pack(order + "II", round(value * 1000), 1000) for value in picture.dpi]
    return {
        282: Entry(RATIONAL, 1, pairs[0]),
        283: Entry(RATIONAL, 1, pairs[1]),
        296: whole_numbers(order, SHORT, 2),
    }
