"""EXIF orientation: applied exactly once, in every format, then 1."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, features

from moir.picture import decode, encode, from_array, from_pil

ORIENTATION = 0x0112
KINDS = ["JPEG", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])]


def block(orientation):
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = orientation, "Maker"
    return exif.tobytes()


def stored():
    # Four corners of different colours, large enough to survive compression, not square.
    values = np.zeros((32, 48, 3), np.uint8)
    values[:16, :24], values[:16, 24:] = (255, 0, 0), (0, 255, 0)
    values[16:, :24], values[16:, 24:] = (0, 0, 255), (255, 255, 255)
    return values


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_as_pil_turns_it(kind, orientation, saved):
    data = saved(stored(), kind, exif=block(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    picture = decode(data)
    np.testing.assert_array_equal(picture.to_numpy(), expected)
    assert (picture.height, picture.width) == ((48, 32) if orientation >= 5 else (32, 48))
    # Written and read again, it must not turn a second time, neither here nor elsewhere.
    for suffix in (".png", ".tif", ".jpg", ".webp"):
        again = encode(picture, suffix)
        image = Image.open(io.BytesIO(again))
        assert image.getexif().get(ORIENTATION, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
        assert ImageOps.exif_transpose(image).size == (picture.width, picture.height)
        assert np.abs(decode(again).to_numpy().astype(int) - expected).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit(orientation, deep, png, tmp_path):
    rgb = deep[..., :3]
    eight = Image.fromarray((rgb >> 8).astype(np.uint8))
    eight.getexif()[ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(eight))
    from_png = decode(png(rgb, 2, {b"eXIf": block(orientation)[6:]}))
    tags = [(ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", extratags=tags)
    from_tiff = decode((tmp_path / "a.tif").read_bytes())
    for picture in (from_png, from_tiff):
        assert picture.depth == 16
        np.testing.assert_array_equal(picture.to_numpy() >> 8, expected)
        back = decode(encode(picture, ".tif"))
        np.testing.assert_array_equal(back.to_numpy(), picture.to_numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_xmp_is_told_as_well(kind, saved, xmp):
    turned = decode(saved(stored(), kind, exif=block(6), xmp=xmp))
    assert turned.xmp == xmp.replace(b'"6"', b'"1"')
    # XMP alone turns nothing in viewers; so it does nothing here, and stays.
    alone = decode(saved(stored(), kind, xmp=xmp))
    assert (alone.width, alone.xmp) == (48, xmp)


def test_size_fields_are_swapped(saved, exif):
    picture = decode(saved(np.zeros((48, 64, 3), np.uint8), "JPEG", exif=exif))
    fields = Image.Exif()
    fields.load(picture.exif)
    assert (fields.get_ifd(0x8769)[0xA002], fields.get_ifd(0x8769)[0xA003]) == (48, 64)


def test_pil_images_are_turned_once(saved):
    for kind in KINDS:
        image = Image.open(io.BytesIO(saved(stored(), kind, exif=block(6))))
        picture = from_pil(image)
        assert (picture.height, picture.width) == (48, 32), kind
        assert from_pil(picture.to_pil()).height == 48
        assert from_pil(ImageOps.exif_transpose(image)).height == 48


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_nonsense_is_upright(value, saved):
    picture = decode(saved(stored(), "JPEG", exif=block(value)))
    assert (picture.height, picture.width) == (32, 48)
    assert Image.open(io.BytesIO(encode(picture, ".jpg"))).getexif()[ORIENTATION] == 1


def test_alpha_turns_along(saved):
    values = np.zeros((4, 6, 4), np.uint8)
    values[0, 0] = 255
    picture = decode(saved(values, "PNG", exif=block(6)))
    assert picture.alpha[0, 3] == 1
    assert picture.alpha.sum() == 1
    assert from_array(values).alpha[0, 0] == 1
