"""Pictures: files and arrays to float tensors and back, without losing what else the file held."""

from moir.picture.arrays import from_array, from_tensor
from moir.picture.bleed import prepare_colour
from moir.picture.formats import (
    DEFAULT_MAX_PIXELS,
    READABLE_SUFFIXES,
    WRITABLE_SUFFIXES,
    FirstFrameWarning,
    is_picture_name,
)
from moir.picture.picture import Picture
from moir.picture.pil_images import from_pil
from moir.picture.reading import decode, read
from moir.picture.writing import encode, write

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "READABLE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "FirstFrameWarning",
    "Picture",
    "decode",
    "encode",
    "from_array",
    "from_pil",
    "from_tensor",
    "is_picture_name",
    "prepare_colour",
    "read",
    "write",
]
