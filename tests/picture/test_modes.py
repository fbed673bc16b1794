"""Palettes, bitmaps, transparent colours, CMYK, Lab, animations: PIL's many modes become plain pictures."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from moir.base.errors import InvalidValueError, PictureFormatError
from moir.picture import FirstFrameWarning, decode, encode, from_pil


def test_palette_becomes_rgb(photo, saved):
    image = Image.fromarray(photo).quantize(16)
    picture = decode(saved(image, "PNG"))
    assert not picture.grey
    np.testing.assert_array_equal(picture.to_numpy(), np.asarray(image.convert("RGB")))


def test_palette_with_transparency_becomes_rgba(photo, saved):
    image = Image.fromarray(photo).quantize(4)
    data = saved(image, "PNG", transparency=bytes([0, 128, 255, 255]))
    picture = decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert set(np.unique(expected[..., 3])) == {0, 128, 255}
    np.testing.assert_array_equal(picture.to_numpy(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_transparent_colour(dtype, png):
    values = np.arange(24, dtype=dtype).reshape(2, 4, 3)
    key = values[1, 2].astype(">u2").tobytes()
    alpha = decode(png(values, 2, {b"tRNS": key})).alpha
    assert alpha[1, 2] == 0
    assert alpha.sum() == 7
    grey = values[..., :1]
    alpha = decode(png(grey, 0, {b"tRNS": grey[0, 1].astype(">u2").tobytes()})).alpha
    assert alpha[0, 1] == 0
    assert alpha.sum() == 7


def test_transparent_shade_of_a_bitmap(saved):
    image = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    plain = decode(saved(image, "PNG"))
    assert plain.grey
    assert plain.alpha is None
    np.testing.assert_array_equal(plain.to_numpy(), np.eye(8, dtype=np.uint8) * 255)
    clear = decode(saved(image, "PNG", transparency=1))
    np.testing.assert_array_equal(clear.alpha.numpy(), 1 - np.eye(8))


def test_cmyk_without_profile_as_pil_converts_it(photo, saved):
    data = saved(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    picture = decode(data)
    np.testing.assert_array_equal(picture.to_numpy(), expected)
    assert np.abs(expected.astype(int) - photo).mean() < 10  # not inverted
    tiff = decode(saved(Image.fromarray(photo).convert("CMYK"), "TIFF"))
    assert np.abs(tiff.to_numpy().astype(int) - photo).mean() < 3


def test_cmyk_with_an_unusable_profile_is_converted_plainly(photo, saved, icc):
    # An RGB profile in a CMYK file: must not be kept, and not break anything.
    data = saved(Image.fromarray(photo).convert("CMYK"), "JPEG", icc_profile=icc)
    picture = decode(data)
    assert picture.icc is None
    np.testing.assert_array_equal(picture.to_numpy(), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_lab_becomes_srgb(photo, saved):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(photo), srgb, lab, outputMode="LAB")
    for picture in (from_pil(image), decode(saved(image, "TIFF"))):
        assert np.abs(picture.to_numpy().astype(int) - photo).mean() < 4


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBa", "La", "LA", "PA", "1", "P"])
def test_other_pil_modes(mode, photo):
    start = Image.fromarray(photo)
    middle = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode)
    image = (start.convert(middle) if middle else start).convert(mode)
    picture = from_pil(image)
    assert picture.grey == (mode in ("La", "LA", "1"))
    assert (picture.alpha is not None) == (mode in ("RGBa", "La", "LA", "PA"))
    wanted = image.convert("L" if mode == "1" else {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode, "RGB"))
    wanted = image if mode == "LA" else wanted
    np.testing.assert_array_equal(picture.to_numpy(), np.asarray(wanted))


def test_deep_pil_modes():
    values = np.array([[0, 1, 40000], [65535, 3, 2]], dtype=np.uint16)
    for image in (Image.fromarray(values), Image.fromarray(values.astype(np.int32))):
        picture = from_pil(image)
        assert (picture.depth, picture.grey) == (16, True)
        np.testing.assert_array_equal(picture.to_numpy(), values)
        assert picture.to_pil().mode == "I;16"
    floats = from_pil(Image.fromarray(np.array([[0.0, 0.25, 1.0]], dtype=np.float32)))
    assert floats.rgb[1].tolist() == [[0.0, 0.25, 1.0]]
    with pytest.raises(InvalidValueError, match="70000"):
        from_pil(Image.fromarray(np.array([[70000]], dtype=np.int32)))
    with pytest.raises(InvalidValueError, match="nan"):
        from_pil(Image.fromarray(np.array([[np.nan]], dtype=np.float32)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_with_a_warning(kind, photo, saved):
    second = Image.fromarray(255 - photo)
    data = saved(photo, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    with pytest.warns(FirstFrameWarning, match="2 frames"):
        picture = decode(data)
    assert np.abs(picture.to_numpy().astype(int) - photo).mean() < 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(saved(photo, kind))
        decode(encode(picture, ".png"))


def test_a_thumbnail_page_is_no_second_page(photo, tmp_path):
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(photo, photometric="rgb")
        file.write(photo[::4, ::4], photometric="rgb", subfiletype=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode((tmp_path / "a.tif").read_bytes()).width == 64


def test_transparent_gif(saved):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    picture = decode(saved(image, "GIF", transparency=1))
    assert picture.alpha.tolist() == [[1, 0, 1]]


def test_a_telephone_jpeg_with_a_second_picture_is_a_jpeg(photo, saved):
    data = saved(photo, "MPO", save_all=True, append_images=[Image.fromarray(photo[::2])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = decode(data)
    assert picture.source_format == "JPEG"
    assert from_pil(Image.open(io.BytesIO(data))).source_format == "JPEG"


def test_raw_files_are_named_as_such(photo, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.dng", photo, photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    with pytest.raises(PictureFormatError, match="camera raw"):
        decode((tmp_path / "a.dng").read_bytes())
