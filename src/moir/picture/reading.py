"""Files and bytes to Pictures."""

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, JpegImagePlugin, WebPImagePlugin

from moir.base.errors import (
    PictureCorruptError,
    PictureFormatError,
    PictureNotFoundError,
    PictureUnreadableError,
)
from moir.picture import exif as exif_blocks
from moir.picture.decoded import Decoded, bytes_or_none, sane_dpi
from moir.picture.formats import DEFAULT_MAX_PIXELS, FORMATS, FirstFrameWarning, sniff
from moir.picture.guard import check_size, decoding, quiet_warnings
from moir.picture.picture import Picture
from moir.picture.pil_pixels import pixels_of
from moir.picture.read_png import read_png
from moir.picture.read_tiff import read_tiff

logger = logging.getLogger(__name__)

# PIL's classes are used directly: Image.open would turn JPEGs with a second picture inside (gain maps, 3-D) into
# "MPO", and applies a pixel limit below what telephones make today; moir has its own.
_PLUGINS: dict[str, Callable[[Any], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
if "AVIF" in FORMATS:
    from PIL import AvifImagePlugin

    _PLUGINS["AVIF"] = AvifImagePlugin.AvifImageFile


def read(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a picture file: JPEG, PNG, WebP, TIFF, BMP, GIF, and AVIF where Pillow has it.

    The content decides about the format, not the name. EXIF orientation is applied (XMP's alone is not, as in
    viewers). Palettes become RGB, CMYK and Lab become sRGB, transparent colours become alpha. AVIF of more than 8 bits
    is read as 8 bits. Of animations and documents the first frame or page is read.

    Args:
        path: The file.
        max_pixels: Refuse pictures that declare more; a limit that the program itself set in
            ``PIL.Image.MAX_IMAGE_PIXELS`` counts as well.

    Raises:
        PictureNotFoundError: There is no such file, or it is a folder.
        PictureUnreadableError: The operating system refuses.
        PictureFormatError: Not a picture, or not one that moir reads.
        PictureCorruptError: Empty, truncated or damaged.
        PictureTooLargeError: More pixels than the limit.

    Warns:
        FirstFrameWarning: The file has further frames or pages, which are left out.
    """
    file = Path(path)
    return decode(_bytes_of(file), name=str(file), path=file, max_pixels=max_pixels)


def decode(
    data: bytes,
    *,
    name: str = "the picture",
    path: Path | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Picture:
    """Decode the bytes of a picture file; as :func:`read`, for data that lies in memory.

    Args:
        data: The whole file.
        name: What error messages call it.
        path: Kept in the Picture.
        max_pixels: As for :func:`read`.

    Raises:
        PictureFormatError: Not a picture, or not one that moir reads.
        PictureCorruptError: Empty, truncated or damaged.
        PictureTooLargeError: More pixels than the limit.
    """
    if not data:
        raise PictureCorruptError(f"{name} is empty (0 bytes); get it from its source again")
    kind = sniff(data)
    if kind is None or kind not in FORMATS:
        raise PictureFormatError(_not_readable(name, kind, data))
    with decoding(name, kind):
        if kind == "PNG":
            decoded = read_png(data, name, max_pixels)
        elif kind == "TIFF":
            decoded = read_tiff(data, name, max_pixels)
        else:
            decoded = _read_by_pil(data, kind, name, max_pixels)
        picture = decoded.picture(kind, path)
    if decoded.frames > 1:
        message = f"{name} has {decoded.frames} frames or pages; only the first one is read"
        warnings.warn(message, FirstFrameWarning, stacklevel=3)
    return picture


def _bytes_of(file: Path) -> bytes:
    try:
        if not file.exists():
            raise PictureNotFoundError(f"{file} does not exist; check the name and the folder")
        if file.is_dir():
            raise PictureNotFoundError(f"{file} is a folder, not a picture file; name a file in it")
        if not file.is_file():
            # Reading a pipe or a device might never end.
            raise PictureNotFoundError(f"{file} is not a regular file; copy the picture into one")
        return file.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise PictureUnreadableError(
            f"{file} cannot be opened: {reason}; check its permissions, and those of its folder"
        ) from error


def _not_readable(name: str, kind: str | None, data: bytes) -> str:
    if kind == "HEIC":
        return f"{name} is a HEIC picture, which moir does not read; convert it to JPEG or PNG first"
    if kind == "BigTIFF":
        return f"{name} is a BigTIFF file, which moir does not read; save it as classic TIFF or PNG"
    if kind == "AVIF":
        return f"{name} is an AVIF picture, but this Pillow was built without AVIF; install a newer pillow"
    known = ", ".join(FORMATS)
    return f"{name} is not a picture that moir reads ({known}); it begins with {bytes(data[:12])!r}"


def _read_by_pil(data: bytes, kind: str, name: str, max_pixels: int) -> Decoded:
    with quiet_warnings():
        image = _PLUGINS[kind](io.BytesIO(data))
    with image:
        check_size(name, image.width, image.height, max_pixels)
        with quiet_warnings():
            frames = int(getattr(image, "n_frames", 1))
            image.seek(0)
        image.load()
        info = image.info
        values, icc = pixels_of(image, bytes_or_none(info.get("icc_profile")), name)
        block = bytes_or_none(info.get("exif"))
        return Decoded(
            values,
            exif=exif_blocks.normalised(block) if block else None,
            icc=icc,
            xmp=bytes_or_none(info.get("xmp")),
            dpi=sane_dpi(info.get("dpi")),
            frames=frames,
            webp_lossless=kind == "WEBP" and _is_lossless_webp(data),
        )


def _is_lossless_webp(data: bytes) -> bool:
    # The first pixel chunk tells; in animations it lies inside the first frame (ANMF, 16 bytes of its own header).
    offset = 12
    while offset + 8 <= len(data):
        kind, length = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        offset += 24 if kind == b"ANMF" else 8 + length + length % 2
    return False
