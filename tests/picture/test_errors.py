"""Every bad file is one clear, typed error that names the file; nothing is printed."""

import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from moir.base.errors import (
    PictureCorruptError,
    PictureFormatError,
    PictureNotFoundError,
    PictureTooLargeError,
    PictureUnreadableError,
)
from moir.picture import decode, from_array, read, write

SUFFIXES = [".jpg", ".png", ".webp", ".tif", ".bmp", *([".avif"] if features.check("avif") else [])]


@pytest.fixture
def put(tmp_path):
    def put(data, name="bad.png"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return put


def raises(error, path, **options):
    with pytest.raises(error, match=re.escape(str(path))) as caught:
        read(path, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)  # what to do next


def test_missing_and_folders(tmp_path):
    raises(PictureNotFoundError, tmp_path / "none.png")
    raises(PictureNotFoundError, tmp_path)
    raises(PictureNotFoundError, tmp_path / "a.txt" / "none.png")


def test_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    raises(PictureNotFoundError, tmp_path / "pipe.png")


def test_no_permission(put, monkeypatch):
    path = put(b"x")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    # chmod would not stop root, as which tests often run.
    monkeypatch.setattr(type(path), "read_bytes", refuse)
    raises(PictureUnreadableError, path)


def test_a_name_too_long(tmp_path):
    with pytest.raises(PictureUnreadableError):
        read(tmp_path / ("x" * 5000 + ".png"))


def test_empty(put):
    raises(PictureCorruptError, put(b""))


@pytest.mark.parametrize(
    "data",
    [b"x", b"BMW is no picture, whatever it begins with", b"%PDF-1.7", b"\0" * 100, b"\xff\xd8", b"RIFF1234WAVE"],
)
def test_no_picture(put, data):
    with pytest.raises(PictureFormatError, match="not a picture that moir reads"):
        read(put(data))


def test_known_by_name_only(put):
    for data, word in ((b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"), (b"II+\0\x08\0\0\0", "BigTIFF")):
        with pytest.raises(PictureFormatError, match=word):
            read(put(data))


def test_content_decides_not_the_name(put, photo, saved):
    picture = read(put(saved(photo, "PNG"), "photo.jpg"))
    assert picture.source_format == "PNG"
    assert picture.path.name == "photo.jpg"
    np.testing.assert_array_equal(picture.to_numpy(), photo)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated(tmp_path, photo, suffix, part, capfd):
    path = tmp_path / f"a{suffix}"
    write(from_array(photo), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    raises(PictureCorruptError, path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.98])
def test_truncated_16_bit(tmp_path, deep, suffix, part, capfd):
    path = tmp_path / f"a{suffix}"
    write(from_array(deep), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    raises(PictureCorruptError, path)
    assert capfd.readouterr() == ("", "")


def test_all_pixels_are_there_without_the_end_mark(photo, saved):
    np.testing.assert_array_equal(decode(saved(photo, "PNG")[:-12]).to_numpy(), photo)


def test_damaged_lzw_prints_nothing(photo, saved, capfd):
    data = bytearray(saved(photo, "TIFF", compression="tiff_lzw"))
    for position in range(200, 3000, 50):
        data[position] ^= 0x55
    with pytest.raises(PictureCorruptError):
        decode(bytes(data))
    assert capfd.readouterr() == ("", "")


def test_16_bit_png_with_bad_content_never_reaches_libpng(deep, png, capfd):
    rgb = deep[..., :3]
    plain = png(rgb, 2)
    rows = bytearray(zlib.decompress(plain[41:-16]))
    rows[0] = 9  # no such filter
    for stream in (zlib.compress(bytes(rows)), zlib.compress(bytes(rows[:-7])), b"no zlib at all"):
        body = b"IDAT" + stream
        crc = struct.pack(">I", zlib.crc32(body))
        with pytest.raises(PictureCorruptError):
            decode(plain[:33] + struct.pack(">I", len(stream)) + body + crc + plain[-12:])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_many_pixels(tmp_path, photo, suffix):
    path = tmp_path / f"a{suffix}"
    write(from_array(photo), path)
    raises(PictureTooLargeError, path, max_pixels=48 * 64 - 1)
    assert read(path, max_pixels=48 * 64).width == 64


def test_bombs_are_refused_by_their_header(put, png):
    huge = bytearray(png(np.zeros((1, 1), np.uint8), 0))
    huge[16:24] = struct.pack(">II", 100_000, 100_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(bytes(huge[12:29])))
    path = put(bytes(huge))
    raises(PictureTooLargeError, path)


def test_a_limit_set_in_pil_counts(photo, saved, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PictureTooLargeError, match="MAX_IMAGE_PIXELS"):
        decode(saved(photo, "JPEG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # PIL would warn, and go on
    assert decode(saved(photo, "JPEG")).width == 64
    assert not recwarn.list


def test_no_memory_is_no_damage(photo, saved, monkeypatch):
    def none_left(*_):
        raise MemoryError

    monkeypatch.setattr("moir.picture.reading.pixels_of", none_left)
    with pytest.raises(PictureTooLargeError):
        decode(saved(photo, "JPEG"))


def test_metadata_bombs_are_left_out(photo, png):
    bomb = b"name\0\0" + zlib.compress(b"\0" * (65 << 20), 9)
    assert decode(png(photo, 2, {b"iCCP": bomb})).icc is None
