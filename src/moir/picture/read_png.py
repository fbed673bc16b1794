"""PNG: chunks and metadata read here, 8-bit pixels by PIL, 16-bit pixels by OpenCV.

Both decoders are given a copy with nothing in it but checked pixel chunks. So the two cannot differ in what they make
of metadata, neither stumbles over it, and OpenCV (whose libpng prints to the error stream) sees no damage.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import PngImagePlugin

from moir.base.errors import PictureCorruptError
from moir.picture import exif as exif_blocks
from moir.picture.decoded import Decoded, sane_dpi
from moir.picture.guard import check_size
from moir.picture.pil_pixels import pixels_of
from moir.picture.quantise import Array

logger = logging.getLogger(__name__)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = b"XML:com.adobe.xmp"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_LARGEST_METADATA = 64 << 20  # a profile or packet that inflates to more than this is an attack
# Adam7: first column, first row, column step, row step of the seven passes.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with length and check sum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def read_png(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode a PNG file; whatever is raised besides MoirError means damage.

    Raises:
        PictureTooLargeError: More than ``max_pixels`` are declared.
        PictureCorruptError: A pixel chunk is damaged or missing.
    """
    chunks = list(_chunks(data, name))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise PictureCorruptError(f"{name}: the PNG header is missing; get the file again")
    header = chunks[0][1]
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth not in _DEPTHS.get(colour, ()) or interlaced > 1:
        raise PictureCorruptError(f"{name}: the PNG header is damaged (depth {depth}, colour type {colour})")
    check_size(name, width, height, max_pixels)
    first = dict(reversed(chunks))  # of several chunks of a kind, the first
    pixels = b"".join(body for kind, body in chunks if kind == b"IDAT")
    bare = SIGNATURE + chunk(b"IHDR", header)
    if colour == 3:
        # Only for palettes: the decoders' own idea of a transparent colour differs for the other types.
        bare += b"".join(chunk(kind, first[kind]) for kind in (b"PLTE", b"tRNS") if kind in first)
    bare += chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    if depth == 16:
        _check_rows(pixels, width, height, 2 * _CHANNELS[colour], bool(interlaced), name)
        values = _decode_deep(bare, colour)
    else:
        with PngImagePlugin.PngImageFile(io.BytesIO(bare)) as image:
            image.load()
            values, _ = pixels_of(image, None, name)
    if colour in (0, 2) and b"tRNS" in first:
        values = _with_key_transparency(values, first[b"tRNS"], depth)
    return Decoded(
        values,
        exif=_exif(chunks),
        icc=_profile(first.get(b"iCCP")),
        xmp=_xmp(chunks),
        dpi=_dpi(first.get(b"pHYs")),
        frames=_frames(first.get(b"acTL")),
        png_chunks=tuple((kind, first[kind]) for kind in _COLOUR_CHUNKS if kind in first),
    )


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    offset = len(SIGNATURE)
    while offset + 8 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        kind = data[offset + 4 : offset + 8]
        body = data[offset + 8 : offset + 8 + length]
        check = data[offset + 8 + length : offset + 12 + length]
        intact = len(check) == 4 and int.from_bytes(check, "big") == zlib.crc32(body, zlib.crc32(kind))
        if kind == b"IEND":
            return
        if intact:
            yield kind, body
        elif kind in (b"IHDR", b"PLTE", b"IDAT"):
            raise PictureCorruptError(f"{name}: the {kind.decode()} part of the PNG is damaged; get the file again")
        else:
            logger.warning("%s: the PNG chunk %r is damaged; left out", name, kind)
        offset += 12 + length
    # The pixels may be complete all the same; the decoder will tell.
    logger.warning("%s: the PNG file ends before its end mark", name)


def _check_rows(pixels: bytes, width: int, height: int, pixel_bytes: int, interlaced: bool, name: str) -> None:
    # All that libpng could complain of: too few bytes, or a row with an unknown filter number.
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    sizes = [(columns, rows) for columns, rows in sizes if columns > 0 and rows > 0]
    expected = sum((columns * pixel_bytes + 1) * rows for columns, rows in sizes)
    stream = np.frombuffer(zlib.decompressobj().decompress(pixels, expected), np.uint8)
    if stream.size < expected:
        raise PictureCorruptError(f"{name} is truncated: {stream.size} of {expected} bytes of pixels are there")
    start = 0
    for columns, rows in sizes:
        length = columns * pixel_bytes + 1
        if int(stream[start : start + length * rows : length].max()) > 4:
            raise PictureCorruptError(f"{name}: the pixel data of the PNG is damaged; get the file again")
        start += length * rows


def _decode_deep(bare: bytes, colour: int) -> Array:
    import cv2

    values: Array | None = cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ValueError("OpenCV cannot decode it")
    if colour == 0:
        return values[..., None]
    if colour == 4:  # grey and alpha come as four channels
        return values[..., (2, 3)]
    return values[..., (2, 1, 0, 3)[: values.shape[2]]]


def _with_key_transparency(values: Array, key: bytes, depth: int) -> Array:
    # tRNS of grey and RGB pictures: one colour is transparent. Narrow greys were widened, so the key is too.
    scale = 255 // (2**depth - 1) if depth < 8 else 1
    colours = np.frombuffer(key[: 2 * values.shape[2]], ">u2").astype(np.int64) & (2**depth - 1)
    if colours.size != values.shape[2]:
        return values
    opaque = (values != colours * scale).any(axis=2, keepdims=True)
    return np.concatenate([values, opaque * np.asarray(np.iinfo(values.dtype).max, values.dtype)], axis=2)


def _exif(chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    for kind, body in chunks:
        if kind == b"eXIf" and body:
            return exif_blocks.normalised(body)
    for kind, body in chunks:
        # Before eXIf was standardised, ImageMagick and others wrote hexadecimal text.
        keyword, _, rest = body.partition(b"\0")
        if kind in (b"zTXt", b"tEXt") and keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
            text = _inflated(rest[1:]) if kind == b"zTXt" else rest
            try:
                block = bytes.fromhex("".join((text or b"").decode("ascii").split()[2:]))
            except ValueError:
                continue
            if block.startswith(exif_blocks.PREFIX):
                return block
    return None


def _profile(body: bytes | None) -> bytes | None:
    return _inflated(body.partition(b"\0")[2][1:]) if body else None


def _xmp(chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    for kind, body in chunks:
        keyword, _, rest = body.partition(b"\0")
        if kind == b"iTXt" and keyword == XMP_KEYWORD and len(rest) > 2:
            text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after language and translated keyword
            return _inflated(text) if rest[0] else text
    return None


def _dpi(body: bytes | None) -> tuple[float, float] | None:
    if body is None or len(body) != 9 or body[8] != 1:
        return None
    return sane_dpi(v * 0.0254 for v in struct.unpack(">II", body[:8]))


def _frames(body: bytes | None) -> int:
    return int.from_bytes(body[:4], "big") if body and len(body) == 8 else 1


def _inflated(body: bytes) -> bytes | None:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(body, _LARGEST_METADATA)
    except zlib.error:
        text = b""
    if not inflater.eof:
        logger.warning("compressed metadata of a PNG file is damaged or too large; left out")
        return None
    return text
