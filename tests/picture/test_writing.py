"""Files appear whole or not at all; nothing is replaced unasked; wrong requests are refused before any work."""

import logging

import numpy as np
import pytest
import torch

from moir.base.errors import InvalidValueError, OutputExistsError, PictureError, PictureFormatError
from moir.picture import (
    READABLE_SUFFIXES,
    WRITABLE_SUFFIXES,
    encode,
    from_array,
    is_picture_name,
    read,
    write,
)


def test_never_overwrites_unasked(tmp_path, photo):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        write(from_array(photo), path)
    assert path.read_bytes() == b"precious"
    write(from_array(photo), path, overwrite=True)
    np.testing.assert_array_equal(read(path).to_numpy(), photo)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_makes_folders(tmp_path, photo):
    write(from_array(photo), tmp_path / "x" / "y" / "a.png")
    assert (tmp_path / "x" / "y" / "a.png").is_file()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
def test_not_finite_leaves_nothing(tmp_path, photo, value, suffix):
    broken = torch.zeros(3, 48, 64)
    broken[1, 47, 63] = value
    with pytest.raises(InvalidValueError, match="NaN or infinite"):
        write(from_array(photo).with_rgb(broken), tmp_path / "new" / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_encoder_is_a_picture_error(tmp_path, photo, monkeypatch):
    def fail(*_, **__):
        raise OSError("encoder error -2")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(PictureError, match="cannot encode the picture as JPEG"):
        write(from_array(photo), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_picture_error(tmp_path, photo, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(PictureError, match="No space left"):
        write(from_array(photo), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way(tmp_path, photo):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(PictureError):
        write(from_array(photo), tmp_path / "a.png", overwrite=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PictureError):
        write(from_array(photo), tmp_path / "file" / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.xyz", "a", "a.tar.gz", ".png"])
def test_unknown_suffix(tmp_path, photo, name):
    with pytest.raises(PictureFormatError, match=r"\.png"):
        write(from_array(photo), tmp_path / name)


@pytest.mark.parametrize("quality", [0, 101, -5, 95.5])
def test_quality_out_of_range(photo, quality):
    with pytest.raises(InvalidValueError, match=str(quality)):
        encode(from_array(photo), ".jpg", quality=quality)


def test_too_wide_for_the_format():
    wide = from_array(np.zeros((1, 16384, 3), np.uint8))
    with pytest.raises(PictureFormatError, match="16383"):
        encode(wide, ".webp")
    assert encode(wide, ".png")


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_16_bits_become_8_with_a_warning(suffix, deep, caplog):
    with caplog.at_level(logging.WARNING):
        encode(from_array(deep[..., :3]), suffix)
    assert "16 bits per channel (written as 8)" in caplog.text
    caplog.clear()
    encode(from_array(deep[..., :3]), ".png")
    assert not caplog.records


def test_suffixes():
    assert READABLE_SUFFIXES - {".gif"} == WRITABLE_SUFFIXES
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"} <= WRITABLE_SUFFIXES
    assert is_picture_name("A.JPEG")
    assert is_picture_name("x/y.gif")
    assert not is_picture_name("png")
