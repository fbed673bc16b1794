"""Lossless formats give back every bit; lossy ones stay close; depth, grey and alpha stay what they are."""

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from moir.picture import WRITABLE_SUFFIXES, decode, encode, from_array, read, write


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_lossless_is_exact(tmp_path, deep, suffix, channels, depth):
    values = deep[..., 4 - channels :] if depth == 16 else (deep[..., 4 - channels :] >> 8).astype(np.uint8)
    values = values[..., 0] if channels == 1 else values
    write(from_array(values), tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    assert (back.depth, back.grey, back.alpha is not None) == (depth, channels <= 2, channels in (2, 4))
    np.testing.assert_array_equal(back.to_numpy(), values)
    assert back.to_numpy().dtype == values.dtype


def test_other_programs_read_our_16_bit_files(tmp_path, deep):
    rgb = deep[..., :3]
    np.testing.assert_array_equal(tifffile_of(encode(from_array(rgb), ".tif"), tmp_path), rgb)
    png = np.frombuffer(encode(from_array(deep), ".png"), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]], deep)
    with Image.open(tmp_path / "t.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), (rgb >> 8).astype(np.uint8))


def tifffile_of(data, folder):
    # skimage brings tifffile, but not the codecs it needs for predictors: OpenCV stands in.
    (folder / "t.tif").write_bytes(data)
    with tifffile.TiffFile(folder / "t.tif") as file:
        assert (file.pages[0].bitspersample, file.pages[0].photometric.name) == (16, "RGB")
    return cv2.imread(str(folder / "t.tif"), cv2.IMREAD_UNCHANGED)[..., ::-1]


def test_tall_16_bit_pictures_span_strips(deep):
    tall = np.tile(deep[..., :3], (9, 1, 1))
    np.testing.assert_array_equal(decode(encode(from_array(tall), ".png")).to_numpy(), tall)
    wide = np.tile(deep[..., :3], (40, 20, 1))  # 3.4 MB, several TIFF strips
    np.testing.assert_array_equal(decode(encode(from_array(wide), ".tif")).to_numpy(), wide)


def test_bmp_is_exact(photo):
    np.testing.assert_array_equal(decode(encode(from_array(photo), ".bmp")).to_numpy(), photo)
    grey = decode(encode(from_array(photo[..., 0]), ".bmp"))
    assert grey.grey
    np.testing.assert_array_equal(grey.to_numpy(), photo[..., 0])


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES & {".jpg", ".jpeg", ".webp", ".avif"}))
def test_lossy_is_close_and_quality_counts(photo, suffix):
    picture = from_array(photo)
    good = decode(encode(picture, suffix))
    assert np.abs(good.to_numpy().astype(int) - photo).mean() < 5  # WebP halves colour resolution
    assert len(encode(picture, suffix, quality=10)) < len(encode(picture, suffix)) / 2


def test_jpeg_keeps_grey_and_full_colour_resolution(photo):
    assert decode(encode(from_array(photo[..., 1]), ".jpg")).grey
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2, 0] = 255  # red columns of one pixel: 4:2:0 would mix them
    back = decode(encode(from_array(stripes), ".jpg")).to_numpy()
    assert np.abs(back.astype(int) - stripes).max() < 40


def test_webp_is_lossless_when_the_source_was(photo, saved):
    lossless = decode(saved(photo, "WEBP", lossless=True))
    np.testing.assert_array_equal(decode(encode(lossless, ".webp")).to_numpy(), photo)
    assert not decode(saved(photo, "WEBP", quality=90)).webp_lossless
    lossy = decode(encode(lossless, ".webp", quality=90)).to_numpy()
    assert (lossy != photo).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1)])
@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
def test_tiny_pictures(size, suffix):
    values = np.full((*size, 3), 200, np.uint8)
    back = decode(encode(from_array(values), suffix)).to_numpy()
    assert back.shape == values.shape
    assert np.abs(back.astype(int) - 200).max() <= 3
    deep_values = np.full((*size, 3), 51234, np.uint16)
    assert decode(encode(from_array(deep_values), suffix)).rgb.mean() == pytest.approx(51234 / 65535, abs=0.01)


def test_rounding_is_half_up_after_clamping():
    below = torch.tensor(0.5 / 255, dtype=torch.float64).float()  # float32 that lies just beside 0.5 / 255
    exact = float(below) * 255 >= 0.5
    values = torch.tensor([-1.0, 0.0, float(below), 0.5, 1.0, 7.0]).expand(3, 1, 6)
    picture = from_array(np.zeros((1, 6, 3), np.uint8)).with_rgb(values)
    assert picture.to_numpy()[0, :, 0].tolist() == [0, 0, int(exact), 128, 255, 255]
    assert picture.to_numpy(16)[0, 3, 0] == 32768


def test_all_codes_survive_the_way_through_float():
    codes = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(from_array(codes).to_numpy(), codes)
    np.testing.assert_array_equal(from_array(codes.astype(">u2")).to_numpy(), codes)
    small = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(from_array(small).to_numpy(), small)
