"""Damage at random: the outcome is a Picture or an error of moir's, and silence."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from moir.base.errors import MoirError
from moir.picture import Picture, decode, encode, from_array


def seeds():
    rng = np.random.default_rng(3)
    small = (rng.integers(0, 256, (9, 11, 3)) // 32 * 32).astype(np.uint8)
    deep = rng.integers(0, 65536, (9, 11, 4), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif.get_ifd(0x8825)[1] = "N"

    def save(kind, image=None, **options):
        buffer = io.BytesIO()
        (image or Image.fromarray(small)).save(buffer, kind, **options)
        return buffer.getvalue()

    found = {
        "jpeg": save("JPEG", exif=exif, xmp=b"<xmp/>"),
        "jpeg cmyk": save("JPEG", Image.fromarray(small).convert("CMYK")),
        "png palette": save("PNG", Image.fromarray(small).quantize(8), transparency=b"\0\x80"),
        "png 16": encode(from_array(deep), ".png"),
        "webp": save("WEBP", exif=exif),
        "bmp": save("BMP"),
        "gif": save("GIF", save_all=True, append_images=[Image.fromarray(255 - small)]),
        "tiff raw": save("TIFF", exif=exif),
        "tiff lzw": save("TIFF", compression="tiff_lzw"),
        "tiff jpeg": save("TIFF", compression="jpeg"),
        "tiff 16": encode(from_array(deep), ".tif"),
        "tiff 16 lzw": cv2.imencode(".tiff", deep, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes(),
    }
    if features.check("avif"):
        found["avif"] = save("AVIF", exif=exif)
    return found


SEEDS = seeds()
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,  # the same damage each time: a red run can be repeated
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def attempt(data):
    try:
        picture = decode(data, max_pixels=100_000)
    except MoirError:
        return
    assert isinstance(picture, Picture)
    # Whatever was read can be written, damaged metadata included.
    for suffix in (".tif", ".png", ".jpg"):
        assert encode(picture, suffix)


@pytest.mark.parametrize("name", sorted(SEEDS))
@pytest.mark.filterwarnings("error", "ignore::moir.picture.FirstFrameWarning")
@FEW
@given(data=st.data())
def test_bytes_are_flipped_and_cut(name, data, capfd):
    damaged = bytearray(SEEDS[name])
    head = st.integers(0, min(len(damaged), 200) - 1)  # headers are where it gets interesting
    for place in data.draw(st.lists(head | st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    attempt(bytes(damaged[:keep]))
    assert capfd.readouterr() == ("", "")


@settings(FEW, max_examples=100)
@given(start=st.sampled_from(sorted(s[:16] for s in SEEDS.values())), rest=st.binary(max_size=200))
def test_only_the_beginning_is_right(start, rest):
    attempt(start + rest)


def test_the_seeds_are_good():
    for name, data in SEEDS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)
            assert decode(data).width in (11, 9), name
