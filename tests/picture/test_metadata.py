"""EXIF, ICC, XMP, resolution: what was in the file is in the next one."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from moir.picture import decode, encode, from_array, from_pil
from moir.picture.exif import PREFIX, made_upright, orientation_of

SUFFIXES = [".jpg", ".png", ".webp", ".tif", *([".avif"] if features.check("avif") else [])]
KINDS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".avif": "AVIF"}


def fields(data):
    """All EXIF fields of a file, as PIL sees them, without what describes pixels or places of directories."""
    exif = Image.open(io.BytesIO(data)).getexif()
    main = {tag: exif.get(tag) for tag in (0x010F, 0x0110, 0x0132)}
    inner = {tag: exif.get_ifd(0x8769).get(tag) for tag in (0x829A, 0x9003)}
    gps = {tag: exif.get_ifd(0x8825).get(tag) for tag in (1, 2, 3, 4)}
    return {"main": main, "exif": inner, "gps": gps}


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_from_every_format_to_every_format(source, target, photo, saved, exif, icc, xmp):
    data = saved(photo, KINDS[source], exif=exif, icc_profile=icc, xmp=xmp)
    picture = decode(data)
    restored = picture.with_rgb(1 - picture.rgb)
    written = encode(restored, target)
    expected = fields(saved(photo, "JPEG", exif=exif))
    assert expected["gps"][2] == (47.0, 30.0, 15.5)
    assert fields(written) == expected
    image = Image.open(io.BytesIO(written))
    assert image.info["icc_profile"] == icc
    assert image.info["xmp"] == xmp.replace(b'"6"', b'"1"')
    again = decode(written)
    assert (again.icc, again.xmp) == (picture.icc, picture.xmp)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_files_hold_it_too(suffix, channels, deep, saved, photo, exif, icc, xmp):
    source = decode(saved(photo, "JPEG", exif=exif, icc_profile=icc, xmp=xmp, dpi=(300, 150)))
    values = deep[..., 4 - channels :]
    picture = from_array(values)
    for name in ("exif", "icc", "xmp", "dpi"):
        object.__setattr__(picture, name, getattr(source, name))
    back = decode(encode(picture, suffix))
    assert back.depth == 16
    assert (back.icc, back.xmp) == (source.icc, source.xmp)
    assert back.dpi == pytest.approx((150, 300), abs=0.02)  # turned with the pixels
    assert fields(encode(back, ".jpg")) == fields(saved(photo, "JPEG", exif=exif))
    np.testing.assert_array_equal(back.to_numpy(), values.squeeze())


def test_exif_of_a_jpeg_changes_by_its_orientation_alone(photo, saved, exif):
    flat = bytearray(exif)
    block = decode(saved(photo, "JPEG", exif=exif)).exif
    different = [i for i, (a, b) in enumerate(zip(flat, block, strict=True)) if a != b]
    assert orientation_of(exif) == 6
    assert orientation_of(block) == 1
    assert len(different) == 3  # orientation, and the swapped width and height


def test_maker_notes_and_odd_fields_survive_bit_by_bit(photo, saved):
    # A private tag of type UNDEFINED in a big-endian block: libraries like to re-encode such things.
    note = bytes(range(40))
    entries = struct.pack(">HHII", 0x927C, 7, len(note), 8 + 2 + 12 + 4 + 2 + 12 + 4)
    block = PREFIX + b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">HHII", 0x8769, 4, 1, 26) + b"\0" * 4
    block += struct.pack(">H", 1) + entries + b"\0" * 4 + note
    picture = decode(saved(photo, "JPEG", exif=block))
    assert picture.exif == block
    assert encode(picture, ".tif")[:2] == b"MM"
    for suffix in (".png", ".webp", ".tif"):
        assert Image.open(io.BytesIO(encode(picture, suffix))).getexif().get_ifd(0x8769)[0x927C] == note


def test_the_thumbnail_is_dropped(photo, saved):
    thumbnail = saved(photo[:8, :8], "JPEG")
    start = 8 + 2 + 12 + 4
    block = PREFIX + b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 3, 1, 1)
    block += struct.pack("<I", start) + struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, start + 30)
    block += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + b"\0" * 4 + thumbnail
    data = saved(photo, "JPEG", exif=block)
    assert Image.open(io.BytesIO(data)).getexif().get_ifd(ExifTags.IFD.IFD1)  # PIL finds it in the source
    assert not Image.open(io.BytesIO(encode(decode(data), ".jpg"))).getexif().get_ifd(ExifTags.IFD.IFD1)


def test_damaged_exif_does_no_harm(photo, saved):
    for junk in (PREFIX + b"junk", PREFIX + b"II*\0\xff\xff\xff\x7f", PREFIX + b"II*\0\x08\0\0\0\xff\xff"):
        assert made_upright(junk) == junk
        picture = decode(saved(photo, "JPEG", exif=junk))
        assert picture.exif == junk
        for suffix in SUFFIXES:
            assert decode(encode(picture, suffix)).width == 64


def test_exif_directories_in_a_ring_end(photo, saved):
    ring = PREFIX + b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + b"\x08\0\0\0"
    assert decode(encode(decode(saved(photo, "JPEG", exif=ring)), ".tif")).width == 64


def test_older_ways_of_exif_in_png(photo, png, exif):
    text = b"\nexif\n" + str(len(exif)).encode() + b"\n" + exif.hex().encode()
    body = b"Raw profile type exif\0\0" + zlib.compress(text)
    picture = decode(png(photo, 2, {b"zTXt": body}))
    assert (picture.height, picture.width) == (64, 48)
    assert orientation_of(picture.exif) == 1


def test_png_colour_chunks_and_compressed_xmp(photo, png, xmp):
    gamma, srgb = struct.pack(">I", 45455), b"\0"
    text = b"XML:com.adobe.xmp\0\x01\0en\0key\0" + zlib.compress(xmp)
    picture = decode(png(photo, 2, {b"gAMA": gamma, b"sRGB": srgb, b"iTXt": text}))
    assert picture.xmp == xmp
    assert dict(decode(encode(picture, ".png")).png_chunks) == {b"gAMA": gamma, b"sRGB": srgb}


def test_too_much_for_jpeg_is_named(photo, caplog):
    picture = from_array(photo)
    object.__setattr__(picture, "xmp", b"x" * 70_000)
    with caplog.at_level(logging.WARNING):
        data = encode(picture, ".jpg")
    assert "XMP of 70000 bytes" in caplog.text
    assert decode(data).xmp is None
    assert len(decode(encode(picture, ".png")).xmp) == 70_000


def test_bmp_names_what_it_cannot_hold(photo, saved, exif, icc, caplog):
    picture = decode(saved(photo, "JPEG", exif=exif, icc_profile=icc))
    with caplog.at_level(logging.WARNING):
        back = decode(encode(picture, ".bmp"))
    assert "BMP cannot hold: EXIF, ICC" in caplog.text
    assert (back.exif, back.icc) == (None, None)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_resolution(suffix, photo, saved):
    picture = decode(saved(photo, "PNG", dpi=(300, 300)))
    assert decode(encode(picture, suffix)).dpi == pytest.approx((300, 300), abs=0.05)


def test_pil_images_bring_and_take_metadata(photo, saved, exif, icc, xmp):
    image = Image.open(io.BytesIO(saved(photo, "JPEG", exif=exif, icc_profile=icc, xmp=xmp)))
    picture = from_pil(image)
    assert picture.source_format == "JPEG"
    assert picture.icc == icc
    assert fields(encode(picture, ".tif"))["main"][0x010F] == "Maker"
    out = picture.to_pil()
    assert (out.info["icc_profile"], orientation_of(out.info["exif"])) == (icc, 1)
    tiff = from_pil(Image.open(io.BytesIO(saved(photo, "TIFF", exif=exif))))
    assert fields(encode(tiff, ".jpg"))["gps"][1] == "N"
    assert from_pil(Image.fromarray(photo)).exif is None
