"""16-bit and float files as other programs write them."""

import io
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from moir.base.errors import PictureFormatError
from moir.picture import decode


def tiff(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_layouts(order, compression, tile, planar, deep):
    rgb = deep[..., :3]
    stored = rgb if planar == "contig" else np.moveaxis(rgb, 2, 0)
    options = {"byteorder": order, "compression": compression, "tile": tile, "planarconfig": planar}
    data = tiff(stored, photometric="rgb", **options, **({} if tile else {"rowsperstrip": 5}))
    picture = decode(data)
    assert picture.depth == 16
    np.testing.assert_array_equal(picture.to_numpy(), rgb)


@pytest.mark.parametrize("compression", [1, 5, 8, 32946])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_compressions_with_predictor(compression, channels, deep):
    # OpenCV sets the horizontal predictor for LZW and Deflate.
    values = deep[..., 0] if channels == 1 else deep[..., :channels]
    bgr = values if channels == 1 else values[..., [2, 1, 0, 3][:channels]]
    ok, data = cv2.imencode(".tiff", np.ascontiguousarray(bgr), [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert ok
    np.testing.assert_array_equal(decode(data.tobytes()).to_numpy(), values)


def test_tiles_with_predictor(deep):
    # Differences start anew in each tile; written by hand since no library here does it.
    rgb = deep[:16, :20, :3]
    padded = np.pad(rgb, ((0, 0), (0, 12), (0, 0)))
    tiles = []
    for x in (0, 16):
        tile = padded[:, x : x + 16].copy()
        tile[:, 1:] -= padded[:, x : x + 15]
        tiles.append(zlib.compress(tile.astype("<u2").tobytes()))
    data = tiff(rgb, photometric="rgb", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offsets = file.pages[0].tags["TileOffsets"]
        counts = file.pages[0].tags["TileByteCounts"]
        places = offsets.valueoffset, counts.valueoffset, counts.dtype
        bits = file.pages[0].tags["SamplesPerPixel"].offset
    patched = bytearray(data)
    position = len(patched)
    width = 4 if places[2] == 4 else 2
    for i, tile in enumerate(tiles):
        patched[places[0] + 4 * i : places[0] + 4 * i + 4] = position.to_bytes(4, "little")
        patched[places[1] + width * i : places[1] + width * (i + 1)] = len(tile).to_bytes(width, "little")
        patched += tile
        position += len(tile)
    # SamplesPerPixel (277) = 3 is what RGB needs at least, but the tag's place is wanted for Predictor: use
    # PlanarConfiguration (284) = 1, which is the default anyway.
    start = bytes(patched).index((284).to_bytes(2, "little") + b"\x03\0\x01\0\0\0", bits)
    patched[start : start + 12] = (317).to_bytes(2, "little") + b"\x03\0\x01\0\0\0\x02\0\0\0"
    np.testing.assert_array_equal(decode(bytes(patched)).to_numpy(), rgb)


# PIL cannot write compressed big-endian 16-bit TIFF.
@pytest.mark.parametrize(
    ("mode", "compression"),
    [("I;16", None), ("I;16", "tiff_lzw"), ("I;16", "tiff_adobe_deflate"), ("I;16B", None)],
)
def test_grey_by_pil(mode, compression, deep, saved):
    grey = deep[..., 0]
    image = Image.frombytes(mode, grey.shape[::-1], grey.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    picture = decode(saved(image, "TIFF", compression=compression))
    assert picture.grey
    np.testing.assert_array_equal(picture.to_numpy(), grey)


def test_white_is_zero(deep):
    data = tiff(deep[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(decode(data).to_numpy(), 65535 - deep[..., 0])


def test_kinds_of_extra_channels(deep):
    alpha = decode(tiff(deep, photometric="rgb", extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(alpha.to_numpy(), deep)
    none = decode(tiff(deep, photometric="rgb", extrasamples=["unspecified"]))
    np.testing.assert_array_equal(none.to_numpy(), deep[..., :3])
    grey = decode(tiff(deep[..., 2:], photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"))
    np.testing.assert_array_equal(grey.to_numpy(), deep[..., 2:])
    share = deep[..., 3:].astype(np.float64) / 65535
    premultiplied = np.concatenate([np.floor(deep[..., :3] * share + 0.5), deep[..., 3:]], 2).astype(np.uint16)
    divided = decode(tiff(premultiplied, photometric="rgb", extrasamples=["assocalpha"])).to_numpy()
    clear = deep[..., 3] > 6553
    assert np.abs(divided[clear].astype(int) - deep[clear]).max() <= 6
    np.testing.assert_array_equal(divided[..., 3], deep[..., 3])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_floats_in_the_unit_range(dtype, deep):
    values = (deep[..., :3] / 65535).astype(dtype)
    picture = decode(tiff(values, photometric="rgb"))
    assert picture.depth == 16
    np.testing.assert_array_equal(picture.rgb.permute(1, 2, 0).numpy(), values.astype(np.float32))


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 5, 3), 3.5, np.float32),
        np.full((4, 5), np.nan, np.float32),
        np.zeros((4, 5, 3), np.float64),
        np.zeros((4, 5, 3), np.int16),
        np.zeros((4, 5), np.uint32),
    ],
)
def test_what_is_no_picture_is_refused(values):
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    with pytest.raises(PictureFormatError, match=r"the picture holds|the picture has"):
        decode(tiff(values, photometric=photometric))


@pytest.mark.parametrize(("colour", "channels"), [(0, [0]), (2, [0, 1, 2]), (4, [0, 3]), (6, [0, 1, 2, 3])])
def test_png_colour_types(colour, channels, deep, png):
    values = deep[..., channels]
    picture = decode(png(values, colour))
    assert (picture.depth, picture.grey) == (16, colour in (0, 4))
    np.testing.assert_array_equal(picture.to_numpy(), values.squeeze())


def test_png_with_every_filter(deep):
    # OpenCV chooses filters adaptively when asked to.
    options = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
    ok, data = cv2.imencode(".png", np.ascontiguousarray(deep[..., [2, 1, 0, 3]]), options)
    assert ok
    np.testing.assert_array_equal(decode(data.tobytes()).to_numpy(), deep)


def test_interlaced_png(deep, png):
    # Adam7 by hand: the seven passes one after another, unfiltered.
    rgb = deep[..., :3]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for x, y, dx, dy in passes for row in rgb[y::dy, x::dx])
    plain = png(rgb, 2)
    header = plain[16:28] + b"\1"
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = plain[:8] + b"".join(
        len(b).to_bytes(4, "big") + k + b + zlib.crc32(k + b).to_bytes(4, "big") for k, b in chunks
    )
    np.testing.assert_array_equal(decode(data).to_numpy(), rgb)
