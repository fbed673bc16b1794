"""Small pictures and files that the tests of `picture/` share."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageCms, PngImagePlugin

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph, (48, 64, 3) uint8."""
    return np.asarray(Image.fromarray(skimage.data.astronaut()).resize((64, 48)))


@pytest.fixture(scope="session")
def deep() -> np.ndarray:
    """(23, 31, 4) uint16: a ramp with noise in the low bits, odd in size, alpha from 0 to 65535."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 65536, (23, 31, 4), dtype=np.uint16)
    values[..., 0] = np.linspace(0, 65535, 31, dtype=np.uint16)[None]
    values[0, :, 3] = 0
    values[1, :, 3] = 65535
    return values


@pytest.fixture(scope="session")
def exif() -> bytes:
    """An EXIF block as a camera writes it; orientation 6, GPS, exposure."""
    block = Image.Exif()
    block[0x010F], block[0x0110], block[0x0132] = "Maker", "Model 7", "2024:05:06 07:08:09"
    block[0x0112] = 6
    block.get_ifd(0x8769).update({0x829A: (1, 250), 0xA002: 64, 0xA003: 48, 0x9003: "2024:05:06 07:08:09"})
    block.get_ifd(0x8825).update({1: "N", 2: (47.0, 30.0, 15.5), 3: "E", 4: (8.0, 1.0, 2.25)})
    return block.tobytes()


@pytest.fixture(scope="session")
def icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="session")
def xmp() -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6" dc:title="b\xc3\xa4r"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )


@pytest.fixture(scope="session")
def saved() -> Callable[..., bytes]:
    """PIL's bytes of an array or image."""

    def save(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        if kind == "PNG" and "xmp" in options:  # PIL writes it from text chunks only
            options["pnginfo"] = info = PngImagePlugin.PngInfo()
            info.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        if kind == "TIFF" and "xmp" in options:  # and from raw tags only
            block = Image.Exif()
            block.load(options.get("exif", b""))
            block[700] = options.pop("xmp")
            options["exif"] = block
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return save


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """A PNG written by the letter of the standard, without a library: any depth, any chunks."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make(values: np.ndarray, colour: int, extra: dict[bytes, bytes] | None = None) -> bytes:
        depth = 8 * values.itemsize
        rows = b"".join(b"\0" + row.astype(f">u{values.itemsize}").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
        chunks = {b"IHDR": header, **(extra or {}), b"IDAT": zlib.compress(rows), b"IEND": b""}
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks.items())

    return make
