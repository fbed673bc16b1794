"""Arrays, tensors and PIL images: what is taken, and what is refused with a reason."""

import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import InvalidValueError, MoirError, PictureCorruptError, TensorShapeError
from moir.picture import from_array, from_pil, from_tensor


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays(dtype):
    picture = from_array(np.array([[0, 0.25, 1]], dtype=dtype))
    assert (picture.depth, picture.grey) == (8, True)
    assert picture.to_numpy().tolist() == [[0, 64, 255]]
    assert from_array(np.array([[0.5]], dtype=dtype), depth=16).to_numpy().tolist() == [[32768]]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2), (4, 5, 3), (4, 5, 4)])
def test_array_shapes(shape):
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(from_array(values).to_numpy(), values.squeeze())
    np.testing.assert_array_equal(from_array(values[::-1, ::-1]).to_numpy(), values[::-1, ::-1].squeeze())


@pytest.mark.parametrize("shape", [(5,), (3, 8, 9), (2, 3, 4, 3), (0, 5, 3), (4, 5, 5), ()])
def test_bad_array_shapes(shape):
    with pytest.raises(TensorShapeError, match="expected"):
        from_array(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.int64, bool, np.complex64, object, np.uint32])
def test_bad_array_types(dtype):
    with pytest.raises(TensorShapeError, match=np.dtype(dtype).name):
        from_array(np.zeros((4, 5, 3), dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.01, 1.01, 255.0])
def test_bad_values(value):
    values = np.full((4, 5, 3), 0.5, np.float32)
    values[3, 4, 2] = value
    with pytest.raises(InvalidValueError):
        from_array(values)
    with pytest.raises(InvalidValueError):
        from_tensor(torch.from_numpy(values).permute(2, 0, 1))


def test_rounding_errors_are_clamped():
    assert float(from_array(np.full((1, 1, 3), 1.00001)).rgb.max()) == 1
    assert float(from_tensor(torch.full((3, 1, 1), -0.00001)).rgb.min()) == 0


def test_tensors():
    plane = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    colour = torch.stack([plane, plane / 2, plane / 3])
    assert torch.equal(from_tensor(colour).rgb, colour)
    assert torch.equal(from_tensor(colour[None]).rgb, colour)
    grey = from_tensor(plane[None])
    assert grey.grey
    assert torch.equal(grey.rgb, plane.expand(3, 4, 5))
    whole = from_tensor((colour * 255).to(torch.uint8))
    assert whole.to_numpy().tolist() == (colour * 255).to(torch.uint8).permute(1, 2, 0).tolist()
    assert from_tensor(colour, depth=16).to_numpy().dtype == np.uint16


def test_a_picture_does_not_share_memory_with_its_source():
    tensor, array = torch.zeros(3, 2, 2), np.zeros((2, 2, 3), np.float32)
    first, second = from_tensor(tensor), from_array(array)
    tensor += 1
    array += 1
    assert float(first.rgb.max() + second.rgb.max()) == 0


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 3, 4, 5), (2, 4, 5), (3, 0, 5), (4, 4, 5)])
def test_bad_tensors(shape):
    with pytest.raises(TensorShapeError, match="expected"):
        from_tensor(torch.zeros(shape))


def test_wrong_kinds():
    for wrong in (None, [[0.5]], "a.png"):
        with pytest.raises(TensorShapeError):
            from_array(wrong)
        with pytest.raises(TensorShapeError):
            from_tensor(wrong)
    with pytest.raises(TensorShapeError, match="int64"):
        from_tensor(torch.zeros(3, 4, 5, dtype=torch.int64))
    with pytest.raises(InvalidValueError, match="12"):
        from_tensor(torch.zeros(3, 4, 5), depth=12)


def test_pil_round_trip(photo):
    for mode in ("L", "LA", "RGB", "RGBA"):
        image = Image.fromarray(photo).convert(mode)
        back = from_pil(image).to_pil()
        assert back.mode == mode
        assert back.tobytes() == image.tobytes()


def test_broken_pil_images(photo, saved, tmp_path):
    (tmp_path / "a.jpg").write_bytes(saved(photo, "JPEG")[:900])
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(PictureCorruptError, match=r"a\.jpg"):
        from_pil(image)
    with pytest.raises(MoirError):
        from_pil(Image.new("RGB", (0, 4)))
