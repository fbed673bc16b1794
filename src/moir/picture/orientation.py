"""Turn stored pixels the way they are to be seen, and tell the XMP packet about it."""

import re

import numpy as np

from moir.picture.quantise import Array

# What EXIF's numbers ask for, as (swap the axes, then flip rows, then flip columns).
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

# Both spellings of an XMP property: attribute and element.
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))[2-8](?=\s*[\"'<])")


def turn_upright(values: Array, orientation: int) -> Array:
    """Apply an EXIF orientation (1 to 8) to stored pixels (H, W, C)."""
    swap, rows, columns = _STEPS[orientation]
    if swap:
        values = values.swapaxes(0, 1)
    if rows:
        values = values[::-1]
    if columns:
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def made_upright(xmp: bytes) -> bytes:
    """Set ``tiff:Orientation`` to 1, in place, so that the packet keeps its length.

    Examples:
        >>> made_upright(b'<rdf:Description tiff:Orientation="6"/>')
        b'<rdf:Description tiff:Orientation="1"/>'
    """
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
