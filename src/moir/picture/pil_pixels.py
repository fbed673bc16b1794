"""PIL images of any mode to plain pixels: palettes, transparency, CMYK, Lab, 16 bit."""

import io
import logging

import numpy as np
from PIL import Image, ImageCms

from moir.base.errors import InvalidValueError, PictureFormatError
from moir.picture.quantise import Array

logger = logging.getLogger(__name__)


def pixels_of(image: Image.Image, icc: bytes | None, name: str) -> tuple[Array, bytes | None]:
    """Return the pixels of a loaded PIL image, and the ICC profile if it still fits them.

    CMYK is converted to sRGB by its profile, or by PIL's plain formula if it has none that works; Lab always through
    ImageCms. Both lose the profile. Everything else keeps numbers and profile.

    Returns:
        (H, W, C) uint8, uint16, or float32 for mode F; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.

    Raises:
        InvalidValueError: Mode I outside 0..65535, mode F outside [0, 1].
        PictureFormatError: A mode that PIL cannot convert to RGB.
    """
    mode = image.mode
    transparency = image.info.get("transparency")
    if mode in ("CMYK", "LAB"):
        return _channels(_to_srgb(image, icc, name)), None
    if mode.startswith("I;16"):
        return _channels(image).astype(np.uint16), icc
    if mode == "I":
        return _whole_numbers(_channels(image), name), icc
    if mode == "F":
        return _unit_floats(_channels(image), name), icc
    target = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}.get(mode, "RGB")
    if transparency is not None and mode in ("1", "L"):
        target = "LA"
    elif transparency is not None and mode in ("P", "RGB"):
        target = "RGBA"
    try:
        return _channels(image if mode == target else image.convert(target)), icc
    except (ValueError, KeyError) as error:
        raise PictureFormatError(f"{name} has the pixel type {mode!r}, which cannot be shown as RGB") from error


def _channels(image: Image.Image) -> Array:
    values = np.asarray(image)
    return values[..., None] if values.ndim == 2 else values


def _to_srgb(image: Image.Image, icc: bytes | None, name: str) -> Image.Image:
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # only in-place conversion returns nothing
        return converted
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            logger.warning("%s: its CMYK profile cannot be used (%s); converted without", name, error)
        else:
            assert converted is not None
            return converted
    return image.convert("RGB")


def _whole_numbers(values: Array, name: str) -> Array:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InvalidValueError(
            f"{name} holds numbers from {low} to {high}; 32-bit grey is taken as 16 bit, 0 to 65535: scale it first"
        )
    return values.astype(np.uint16)


def _unit_floats(values: Array, name: str) -> Array:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise InvalidValueError(f"{name} holds floats from {low:g} to {high:g}; they must lie in [0, 1]: scale them")
    return values.astype(np.float32)
