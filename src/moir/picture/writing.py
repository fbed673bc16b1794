"""Pictures to files."""

import dataclasses
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from moir.base.errors import InvalidValueError, MoirError, PictureError, PictureFormatError
from moir.base.files import check_absent, write_bytes
from moir.picture.formats import WRITABLE_SUFFIXES, FileFormat, format_of_suffix
from moir.picture.guard import quiet_warnings
from moir.picture.picture import Picture
from moir.picture.write_png import png_bytes
from moir.picture.write_tiff import tiff_bytes

logger = logging.getLogger(__name__)

# High enough that restoring and saving a JPEG does not put back what was just removed.
_QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90}
_JPEG_SEGMENT = 65533
_JPEG_XMP = _JPEG_SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")


def write(picture: Picture, path: str | Path, *, overwrite: bool = False, quality: int | None = None) -> None:
    """Write a picture in the format that the suffix of ``path`` names; the file appears whole or not at all.

    Pixels are clamped to [0, 1] and rounded half up. PNG, TIFF and BMP are lossless. JPEG and AVIF are written without
    colour subsampling (4:4:4). WebP is lossless if the source was a lossless WebP and ``quality`` is not given, else
    lossy. EXIF, ICC profile, XMP and resolution go along. What the format cannot hold is left out with a logged
    warning that names it: 16 bits become 8; transparency is laid over white in JPEG and BMP; BMP has no metadata.

    Args:
        picture: The picture.
        path: Where to; missing folders are made. See ``WRITABLE_SUFFIXES``.
        overwrite: Replace a file that is there.
        quality: 1 (small) to 100 (good), for JPEG (default 95), WebP (95) and AVIF (90); other formats ignore it.

    Raises:
        OutputExistsError: The file exists and ``overwrite`` is false.
        PictureFormatError: The suffix is not writable, or the format cannot hold a picture of this size.
        InvalidValueError: ``quality`` out of range, or pixels that are NaN or infinite.
        PictureError: The operating system refuses to write.
    """
    target = Path(path)
    data = _checked_bytes(picture, target, overwrite, quality)
    try:
        write_bytes(target, data, overwrite=overwrite)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PictureError(f"cannot write {target}: {reason}; check the folder, its permissions and space") from error


def encode(picture: Picture, suffix: str, *, quality: int | None = None) -> bytes:
    """Return the bytes of the file that :func:`write` would make, for a suffix such as ``".png"``.

    Raises:
        PictureFormatError: The suffix is not writable, or the format cannot hold a picture of this size.
        InvalidValueError: ``quality`` out of range, or pixels that are NaN or infinite.
    """
    chosen = format_of_suffix("x" + suffix)
    if chosen is None:
        known = " ".join(sorted(WRITABLE_SUFFIXES))
        raise PictureFormatError(f"cannot write pictures with the suffix {suffix!r}; known: {known}")
    if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
        raise InvalidValueError(f"quality must be a whole number from 1 to 100, not {quality}")
    if max(picture.width, picture.height) > chosen.max_side:
        raise PictureFormatError(
            f"{chosen.name} holds at most {chosen.max_side} pixels a side, the picture is "
            f"{picture.width}x{picture.height}; write PNG or TIFF instead"
        )
    fitting = _fitted(picture, chosen)
    try:
        if chosen.name == "PNG":
            return png_bytes(fitting)
        if chosen.name == "TIFF":
            return tiff_bytes(fitting)
        return _by_pil(fitting, chosen.name, quality)
    except MoirError:
        raise
    except Exception as error:  # encoders raise as many types as decoders
        raise PictureError(f"cannot encode the picture as {chosen.name}: {error}; try PNG") from error


def _checked_bytes(picture: Picture, target: Path, overwrite: bool, quality: int | None) -> bytes:
    # What can be refused cheaply is refused before the work of encoding.
    if format_of_suffix(target) is not None:
        try:
            check_absent(target, overwrite=overwrite)
        except OSError as error:
            raise PictureError(f"cannot write {target}: {error.strerror}; check the folder") from error
    return encode(picture, target.suffix.lower(), quality=quality)


def _fitted(picture: Picture, chosen: FileFormat) -> Picture:
    """Return the picture without what the format cannot hold, and say what that was."""
    changes: dict[str, Any] = {}
    lost = []
    if picture.depth == 16 and not chosen.deep:
        changes["depth"] = 8
        lost.append("16 bits per channel (written as 8)")
    if picture.alpha is not None and not chosen.alpha:
        changes |= {"alpha": None, "rgb": torch.lerp(torch.ones_like(picture.rgb), picture.rgb, picture.alpha)}
        lost.append("transparency (laid over white)")
    for name in ("exif", "icc", "xmp"):
        if getattr(picture, name) and not chosen.metadata:
            changes[name] = None
            lost.append(name.upper())
    if chosen.name == "JPEG":
        for name, limit in (("exif", _JPEG_SEGMENT), ("xmp", _JPEG_XMP)):
            block = getattr(picture, name)
            if block and len(block) > limit:
                changes[name] = None
                lost.append(f"{name.upper()} of {len(block)} bytes (at most {limit})")
    if chosen.name == "AVIF" and picture.exif and not _readable_by_pil(picture.exif):
        changes["exif"] = None
        lost.append("EXIF data that is damaged")
    if lost:
        logger.warning("%s cannot hold: %s", chosen.name, ", ".join(lost))
    return dataclasses.replace(picture, **changes) if changes else picture


def _readable_by_pil(exif: bytes) -> bool:
    # For AVIF, PIL takes the block apart, to move the orientation to where that format has it.
    try:
        block = Image.Exif()
        with quiet_warnings():
            warnings.filterwarnings("error", message="Corrupt EXIF")
            block.load(exif)
            block.tobytes()
    except Exception:  # as many types as damages
        return False
    return True


def _by_pil(picture: Picture, name: str, quality: int | None) -> bytes:
    image = Image.fromarray(picture.to_numpy())
    options: dict[str, Any] = {}
    if name in _QUALITY:
        options["quality"] = quality or _QUALITY[name]
    if name == "WEBP":
        options["lossless"] = picture.webp_lossless and quality is None
        if options["lossless"]:
            options["quality"] = 80  # here it means effort
        options["exact"] = picture.alpha is not None  # keep the colours under transparency
    elif name in ("JPEG", "AVIF") and not picture.grey:
        options["subsampling"] = "4:4:4"
    if picture.dpi and name in ("JPEG", "BMP"):
        options["dpi"] = picture.dpi
    kept = {"exif": picture.exif, "icc_profile": picture.icc, "xmp": picture.xmp}
    options |= {key: value for key, value in kept.items() if value and name != "BMP"}
    if name == "AVIF" and picture.alpha is not None:
        try:  # colours by quality, alpha to the bit; encoders other than libaom know no such option
            return _saved(image, name, codec="aom", advanced={"a:lossless": "1"}, **options)
        except ValueError:
            logger.warning("this Pillow's AVIF encoder cannot keep alpha exactly; it is off by a few levels")
    return _saved(image, name, **options)


def _saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()
