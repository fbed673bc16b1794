"""The tag directories that TIFF files are made of, and EXIF blocks too: read, looked up, built.

Values stay raw bytes with their type beside them. That way every field, known or not, comes out as it went in, which
libraries that interpret and re-encode values do not promise.
"""

import struct
from dataclasses import dataclass
from typing import Literal, TypeAlias

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7

Order: TypeAlias = Literal["<", ">"]
"""Little or big end first, as the struct module writes it."""

Fields: TypeAlias = "dict[int, Entry | Fields]"
"""Entries by tag number; where there are fields in place of an entry, they are a directory of their own."""


@dataclass(frozen=True)
class Entry:
    """One tag: its type number, how many values, the values' bytes, and where in the data these lie."""

    kind: int
    count: int
    raw: memoryview | bytes
    position: int = 0


@dataclass(frozen=True)
class Directory:
    """The tags of one directory.

    Attributes:
        order: Of the bytes of all numbers.
        entries: By tag number. Entries that point outside the data are left out.
        link: Where in the data the offset of the next directory stands.
        following: The offset of the next directory; 0 if this is the last.
    """

    order: Order
    entries: dict[int, Entry]
    link: int
    following: int

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag, or ``default`` if it is missing or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _WHOLE_NUMBERS:
            return default
        return struct.unpack(f"{self.order}{entry.count}{_WHOLE_NUMBERS[entry.kind]}", entry.raw)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first whole number of a tag, or ``default``."""
        return next(iter(self.numbers(tag)), default)


def byte_order(data: bytes | bytearray) -> Order:
    """Return ``"<"`` or ``">"`` by the first bytes of a TIFF structure.

    Raises:
        ValueError: It does not begin like one.
    """
    if data[:4] == b"II*\0":
        return "<"
    if data[:4] == b"MM\0*":
        return ">"
    raise ValueError("no TIFF header")


def first_directory(data: bytes | bytearray) -> Directory:
    """Read the first directory of a TIFF structure.

    Raises:
        ValueError: The structure is damaged.
    """
    order = byte_order(data)
    return read_directory(data, _unpack(order + "I", data, 4), order)


def read_directory(data: bytes | bytearray, offset: int, order: Order) -> Directory:
    """Read the directory at ``offset``.

    Raises:
        ValueError: It does not lie within the data.
    """
    count = _unpack(order + "H", data, offset)
    link = offset + 2 + 12 * count
    if link > len(data):
        raise ValueError("a tag directory reaches past the end")
    view = memoryview(data).toreadonly()
    entries: dict[int, Entry] = {}
    for start in range(offset + 2, link, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, start)
        length = _TYPE_SIZES.get(kind, 0) * number
        position = start + 8 if length <= 4 else _unpack(order + "I", data, start + 8)
        if length and position + length <= len(data) and tag not in entries:
            entries[tag] = Entry(kind, number, view[position : position + length], position)
    # Some writers leave out the link of the last directory; that costs nothing, so it is no damage.
    following = _unpack(order + "I", data, link) if link + 4 <= len(data) else 0
    return Directory(order, entries, link, following)


def build_directory(entries: Fields, order: Order, offset: int) -> bytes:
    """Lay out a directory, to be put at ``offset`` of a file.

    Raises:
        ValueError: It would lie beyond the 4 GiB that offsets can name.
    """
    head = struct.pack(order + "H", len(entries))
    tail = bytearray()
    tail_offset = offset + 2 + 12 * len(entries) + 4
    for tag in sorted(entries):
        entry = entries[tag]
        if isinstance(entry, Entry):
            kind, count, raw = entry.kind, entry.count, bytes(entry.raw)
        else:
            raw = build_directory(entry, order, tail_offset + len(tail))
            kind, count = LONG, 1
        if isinstance(entry, Entry) and len(raw) <= 4:
            field = raw.ljust(4, b"\0")
        else:
            if tail_offset + len(tail) + len(raw) >= 2**32:
                raise ValueError("a TIFF file cannot be larger than 4 GiB")
            field = struct.pack(order + "I", tail_offset + len(tail))
            tail += raw + b"\0" * (len(raw) % 2)  # offsets are even by the standard
        head += struct.pack(order + "HHI", tag, kind, count) + field
    return head + b"\0\0\0\0" + bytes(tail)


def whole_numbers(order: Order, kind: int, *values: int) -> Entry:
    """Make an entry of BYTE, SHORT or LONG values."""
    return Entry(kind, len(values), struct.pack(f"{order}{len(values)}{_WHOLE_NUMBERS[kind]}", *values))


def _unpack(form: str, data: bytes | bytearray, offset: int) -> int:
    try:
        return int(struct.unpack_from(form, data, offset)[0])
    except struct.error:
        raise ValueError("a tag directory points past the end") from None
