"""TIFF: tags read here, pixels by PIL, 16 bits and floats included.

PIL knows no 16-bit colour, but to its decoders a 16-bit RGB picture is a 16-bit grey one of three times the width. So
PIL gets the file with a directory of its own at the end, which says just that; all of its compressions work, and its
own treatment of orientation and metadata stays out of the way.
"""

import io
import logging
import struct

import numpy as np
from PIL import Image, TiffImagePlugin

from moir.base.errors import PictureCorruptError, PictureFormatError
from moir.picture import exif as exif_blocks
from moir.picture.decoded import Decoded, sane_dpi
from moir.picture.guard import check_size, quiet_stderr, quiet_warnings
from moir.picture.pil_pixels import pixels_of
from moir.picture.quantise import Array
from moir.picture.tiff_tags import (
    LONG,
    RATIONAL,
    SHORT,
    Directory,
    Entry,
    Fields,
    build_directory,
    first_directory,
    read_directory,
    whole_numbers,
)

logger = logging.getLogger(__name__)

ICC, XMP = 34675, 700
_LARGEST_TAG = 16 << 20  # for tags that place pixels; tags may overlap, so this bounds the sum
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # LZW, the two deflates, LZMA, Zstandard


def read_tiff(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode the first page of a TIFF file; whatever is raised besides MoirError means damage.

    8 bits and less per channel, and CMYK: whatever PIL can, as 8 bits. 16 bits: grey and RGB, with or without alpha,
    chunky or planar. Floats (16 and 32 bits) are taken if they all lie in [0, 1], and count as 16-bit pictures.
    Premultiplied ("associated") alpha is divided out.

    Raises:
        PictureTooLargeError: More than ``max_pixels`` are declared.
        PictureFormatError: Camera raw files, and pixel types that have no meaning as a picture.
        PictureCorruptError: Tags that contradict each other.
    """
    main = first_directory(data)
    _refuse_raw(data, main, name)
    check_size(name, main.number(256), main.number(257), max_pixels)
    icc = _bytes(main, ICC)
    bits = set(main.numbers(258, (1,)))
    compression = main.number(259, 1)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        raise PictureFormatError(
            f"{name} uses TIFF compression {compression}, which moir cannot read; save it with LZW or Deflate"
        )
    deep = bits in ({16}, {32}, {64}) and main.number(262, 1) != 5
    if deep:
        values = _deep_pixels(data, main, bits.pop(), name)
    else:
        with _open(_page(data, main, {})) as image:
            values, icc = pixels_of(image, icc, name)
    return Decoded(
        values,
        exif=exif_blocks.from_tiff(data, main),
        icc=icc,
        xmp=_bytes(main, XMP),
        dpi=_dpi(main),
        orientation=orientation if 1 <= (orientation := main.number(274, 1)) <= 8 else 1,
        frames=_pages(data, main),
    )


def _refuse_raw(data: bytes, main: Directory, name: str) -> None:
    # Raw files of most cameras are TIFF files whose first page is a thumbnail: better an error than a tiny picture.
    preview_first = main.number(254) & 1 and 330 in main.entries
    if 50706 in main.entries or data[8:10] == b"CR" or preview_first:
        raise PictureFormatError(f"{name} is a camera raw file; develop it to TIFF, PNG or JPEG first")


def _open(page: bytes) -> Image.Image:
    # libtiff prints its complaints, and PIL warns of them.
    with quiet_stderr(), quiet_warnings():
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(page))
        image.load()
        return image


def _page(data: bytes, main: Directory, changes: dict[int, Entry | None]) -> bytes:
    """Return the file with a new directory of pixel tags alone; a change to None removes a tag."""
    entries = {tag: main.entries[tag] for tag in exif_blocks.PIXEL_TAGS & main.entries.keys()}
    wanted: Fields = {tag: entry for tag, entry in {**entries, **changes}.items() if entry is not None}
    if any(len(entry.raw) > _LARGEST_TAG for entry in entries.values()):
        raise ValueError("a tag is absurdly long")
    offset = len(data) + len(data) % 2
    start = data[:4] + struct.pack(main.order + "I", offset)
    return b"".join((start, memoryview(data)[8:], b"\0" * (len(data) % 2), build_directory(wanted, main.order, offset)))


def _deep_pixels(data: bytes, main: Directory, bits: int, name: str) -> Array:
    width, height, samples = main.number(256), main.number(257), main.number(277, 1)
    photometric, kind = main.number(262, 1), main.number(339, 1)
    colours = 3 if photometric == 2 else 1
    readable = (bits, kind) in ((16, 1), (16, 3), (32, 3)) and photometric in (0, 1, 2)
    predictor = main.number(317, 1) if main.number(259, 1) in _WITH_PREDICTOR else 1
    if not readable or main.number(259, 1) in (6, 7) or predictor > (2 if kind == 1 else 1):
        kinds = {1: "unsigned", 2: "signed", 3: "float"}
        raise PictureFormatError(
            f"{name} has {bits}-bit {kinds.get(kind, 'unknown')} values (photometric {photometric}, predictor "
            f"{predictor}), which moir does not take for a picture; save it as 8- or 16-bit RGB or grey"
        )
    if not colours <= samples <= 16:
        raise PictureCorruptError(f"{name} declares {samples} channels for {colours} colours; it is damaged")
    if main.number(284, 1) == 2 and samples > 1:
        planes = [_one_run(data, main, width, height, 1, plane, samples) for plane in range(samples)]
        values = np.concatenate(planes, axis=2)
    else:
        values = _one_run(data, main, width, height, samples, 0, 1)
    if kind == 3:
        values = _unit_floats(values.view(np.float16) if bits == 16 else values, name)
    if photometric == 0:
        values = np.asarray(1, values.dtype) - values if kind == 3 else np.uint16(65535) - values
    return _with_alpha(values, colours, main.numbers(338))


def _one_run(data: bytes, main: Directory, width: int, height: int, samples: int, plane: int, planes: int) -> Array:
    """Decode one plane of ``planes`` as (H, W, samples), by way of a grey picture of ``samples`` times the width."""
    order, tiled = main.order, 322 in main.entries
    half = main.number(339, 1) == 3 and main.numbers(258)[0] == 16  # PIL has no 16-bit floats, but the same bytes
    changes: dict[int, Entry | None] = dict.fromkeys((320, 333, 338))
    changes |= {
        256: whole_numbers(order, LONG, width * samples),
        258: whole_numbers(order, SHORT, main.numbers(258)[0]),
        262: whole_numbers(order, SHORT, 1),
        277: whole_numbers(order, SHORT, 1),
        284: whole_numbers(order, SHORT, 1),
        317: None,
        339: whole_numbers(order, SHORT, 1 if half else main.number(339, 1)),
    }
    segment = width
    if tiled:
        segment = main.number(322)
        changes[322] = whole_numbers(order, LONG, segment * samples)
    if planes > 1:
        for tag in (324, 325) if tiled else (273, 279):
            numbers = main.numbers(tag)
            share = len(numbers) // planes
            changes[tag] = whole_numbers(order, LONG, *numbers[plane * share : (plane + 1) * share])
    with _open(_page(data, main, changes)) as image:
        flat = np.asarray(image)
        values: Array = flat.astype(flat.dtype.newbyteorder("=")).reshape(height, width, samples)
    if main.number(317, 1) == 2 and main.number(259, 1) in _WITH_PREDICTOR:
        # Each value is stored as the difference to its left neighbour, in strips and tiles of their own.
        for start in range(0, width, max(segment, 1)):
            part = values[:, start : start + segment]
            np.cumsum(part, axis=1, dtype=np.uint16, out=part)
    return values


def _unit_floats(values: Array, name: str) -> Array:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise PictureFormatError(
            f"{name} holds floats from {low:g} to {high:g}; moir takes them in [0, 1] only: scale (tone-map) them first"
        )
    return values.astype(np.float32)


def _with_alpha(values: Array, colours: int, extra: tuple[int, ...]) -> Array:
    # Of the extra samples (0 unspecified, 1 premultiplied alpha, 2 alpha) only a first one that is alpha is kept;
    # files without the tag mean alpha.
    kind = (extra or (2,))[0]
    if values.shape[2] == colours or kind not in (1, 2):
        return values[..., :colours]
    values = values[..., : colours + 1]
    if kind == 1:
        top = 65535 if values.dtype == np.uint16 else 1
        alpha = values[..., -1:].astype(np.float64)
        plain = np.minimum(values[..., :-1] * (top / np.maximum(alpha, 1e-9)), top)
        plain = np.floor(plain + 0.5) if top > 1 else plain
        values = np.concatenate([plain.astype(values.dtype), values[..., -1:]], axis=2)
    return values


def _bytes(main: Directory, tag: int) -> bytes | None:
    entry = main.entries.get(tag)
    return bytes(entry.raw) if entry is not None and entry.kind in (1, 7) else None


def _dpi(main: Directory) -> tuple[float, float] | None:
    values = []
    for tag in (282, 283):
        entry = main.entries.get(tag)
        if entry is None or entry.kind != RATIONAL or entry.count != 1:
            return None
        above, below = struct.unpack(main.order + "II", entry.raw)
        values.append(above / below if below else 0.0)
    unit = {2: 1.0, 3: 2.54}.get(main.number(296, 2), 0.0)
    return sane_dpi(value * unit for value in values)


def _pages(data: bytes, main: Directory) -> int:
    # Thumbnails (1) and masks (4) are no pages of their own. Rings of pages exist in damaged files.
    count, seen, offset = 1, {0}, main.following
    while offset not in seen and len(seen) < 100_000:
        seen.add(offset)
        try:
            page = read_directory(data, offset, main.order)
        except ValueError:
            logger.warning("a further page of a TIFF file is damaged")
            break
        count += not page.number(254) & 5
        offset = page.following
    return count
