"""What stands in for operations that look at sizes in Python, while a graph is recorded for any size.

A tracer writes down tensor operations; an ``if``, ``min`` or loop over a size is lost, and the graph holds for the size
it was recorded at. Each function here does exactly what its namesake elsewhere does, with the size as a tensor, so that
the graph holds for every size. None of them is called except while recording.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

T = TypeVar("T")

OUTSIDE = -100.0
"""EDT: added to the score of two pixels that a shift brought together from opposite borders (published)."""


def traced_as(form: Callable[..., T]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a function with the form that is recorded in its place (by ``torch.jit.trace`` and ONNX export).

    Args:
        form: Takes the same arguments and gives the same result, for any size.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @wraps(function)
        def choose(*args: Any, **kwargs: Any) -> T:
            return form(*args, **kwargs) if torch.jit.is_tracing() else function(*args, **kwargs)

        return choose

    return decorate


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """See :func:`moir.layers.padding.pad_to_multiple`."""
    height, width = sides(x)
    down, right = -height % multiple, -width % multiple
    reflect = (down < height) & (right < width)
    for axis, length, added in ((-2, height, down), (-1, width, right)):
        place = _count(length + added, x)
        beyond = torch.where(reflect, 2 * (length - 1) - place, length - 1)
        x = x.index_select(axis, torch.minimum(place, beyond.clamp(min=0)))
    return x


def reflect_pad(x: torch.Tensor, left: Any, right: Any, top: Any, bottom: Any) -> torch.Tensor:
    """See :func:`moir.layers.padding.reflect_pad`."""
    height, width = sides(x)
    for axis, length, before, after in ((-2, height, top, bottom), (-1, width, left, right)):
        period = torch.clamp(2 * (length - 1), min=1)
        place = (_count(length + before + after, x) - before) % period
        x = x.index_select(axis, torch.minimum(place, (period - place) % period))
    return x


def mirrored(x: torch.Tensor, multiple: int, beyond: bool) -> torch.Tensor:
    """See :func:`moir.networks.edt.mirrored`."""
    for axis, length in zip((-2, -1), sides(x), strict=True):
        target = length + (multiple - length % multiple if beyond else -length % multiple)
        place = _count(target, x) % (2 * length)
        x = x.index_select(axis, torch.minimum(place, 2 * length - 1 - place))
    return x


def local_mean(x: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """See :func:`moir.layers.local_pool.local_mean`; always (B, C, H, W)."""
    height, width = sides(x)
    rows, columns = torch.clamp(height, max=kernel[0]), torch.clamp(width, max=kernel[1])

    def running_mean(y: torch.Tensor, length: Any, whole: Any) -> torch.Tensor:
        sums = F.pad(y.cumsum(dim=-1), (1, 0))
        ends = _count(whole - length + 1, x) + length
        return (sums.index_select(-1, ends) - sums.index_select(-1, ends - length)) / length

    means = running_mean(running_mean(x, columns, width).transpose(2, 3), rows, height).transpose(2, 3)
    for axis, length, window in ((-2, height, rows), (-1, width, columns)):
        fit = length - window
        place = _count(length, x) - (window - 1) // 2
        means = means.index_select(axis, torch.minimum(place.clamp(min=0), fit))
    return means


def native_crops(x: torch.Tensor, view: int, grid: int) -> torch.Tensor:
    """See :func:`moir.layers.views.native_crops`."""
    height, width = sides(x)
    down, right = torch.clamp(view - height, min=0), torch.clamp(view - width, min=0)
    reflect = (down < height) & (right < width)
    inside = _count(torch.as_tensor(view), x)
    counts: list[Any] = []
    for axis, length, added in ((-2, height, down), (-1, width, right)):
        side = length + added
        count = torch.clamp(side // view, max=grid)
        spread = (_count(count, x) * (side - view)).double() / torch.clamp(count - 1, min=1)
        first = torch.where(count > 1, spread.round().long() // 8 * 8, (side - view) // 16 * 8)
        place = (first[:, None] + inside).flatten()
        beyond = torch.where(reflect, 2 * (length - 1) - place, length - 1)
        x = x.index_select(axis, torch.minimum(place, beyond.clamp(min=0)))
        counts.append(count)
    rows, columns = counts
    crops = x.reshape(x.shape[0], 3, rows, view, columns, view).permute(0, 2, 4, 1, 3, 5)
    return crops.reshape(x.shape[0], rows * columns, 3, view, view)


def adaptive_mean(x: torch.Tensor, side: int) -> torch.Tensor:
    """The same as ``adaptive_avg_pool2d(x, side)``, as a product with a matrix of averages from each side."""
    averages = []
    for length in sides(x):
        cell = torch.arange(side, device=x.device)[:, None]
        # Rounded up without negative numbers, which graphs divide towards zero.
        start, stop = cell * length // side, ((cell + 1) * length + side - 1) // side
        place = _count(length, x)
        inside = ((place >= start) & (place < stop)).to(x.dtype)
        averages.append(inside / (stop - start))
    rows, columns = averages
    return rows @ x @ columns.transpose(0, 1)


def slice_grid(grid: torch.Tensor, guide: torch.Tensor, place: torch.Tensor | None = None) -> torch.Tensor:
    """See :func:`moir.layers.bilateral.slice_grid`; as products with matrices of hat functions.

    The graph formats have no sampling in three dimensions.
    """
    cells, bins = grid.shape[-1], grid.shape[2]

    def axis(length: Any, start: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        spot = (2 * (start[:, None] + _count(length, guide)) + 1) * (cells / 2) / whole[:, None] - 0.5
        cell = torch.arange(cells, device=guide.device)
        return torch.relu(1 - (spot.clamp(0, cells - 1)[..., None] - cell).abs())[:, None]

    height, width = sides(guide)
    if place is None:
        place = torch.stack([0 * height, 0 * width, height, width])[None]
    top, left, whole_height, whole_width = place.unbind(1)
    rows, columns = axis(height, top, whole_height), axis(width, left, whole_width).transpose(2, 3)
    found = torch.zeros_like(guide)[:, None]
    for level in range(bins):
        near = torch.relu(1 - (guide * (bins - 1) - level).abs())
        found = found + near[:, None] * (rows @ grid[:, :, level] @ columns)
    return found


def window_circular_convolution(q: torch.Tensor, k: torch.Tensor, window: int) -> torch.Tensor:
    """See :func:`moir.networks.moce_ir_expert.window_circular_convolution`; the Fourier transform as matrix products.

    Graph formats have a Fourier transform at best for one axis at a time, which engines leave unoptimised; matrices of
    at most 32 x 34 run at the speed of any other product.
    """
    height, width = sides(q)
    batch, channels = q.shape[:2]
    bottom, right = -height % window, -width % window
    rows, columns = (height + bottom) // window, (width + right) // window
    forward, both, back = (m.to(q.device) for m in _fourier(window))
    half = window // 2 + 1

    def spectrum(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.pad(x, (0, right, 0, bottom)).reshape(batch, channels, rows, window, columns, window)
        x = (x @ forward).permute(0, 1, 2, 4, 5, 3)  # (B, C, rows, columns, 2 half, window)
        cosine, sine = (x @ both).chunk(2, dim=-1)
        real, imaginary = slice(None, half), slice(half, None)
        return (
            cosine[..., real, :] + sine[..., imaginary, :],
            cosine[..., imaginary, :] - sine[..., real, :],
        )

    (a, b), (c, d) = spectrum(q), spectrum(k)
    cosine, sine = (torch.cat([a * c - b * d, a * d + b * c], dim=-2) @ both).chunk(2, dim=-1)
    real = cosine[..., :half, :] - sine[..., half:, :]
    imaginary = sine[..., :half, :] + cosine[..., half:, :]
    mixed = torch.cat([real, imaginary], dim=-2).permute(0, 1, 2, 5, 3, 4) @ back
    return mixed.reshape(batch, channels, height + bottom, width + right)[..., :height, :width]


def _fourier(window: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices of a real transform along one axis, of cosines and sines along the other, and back along the first."""
    place = torch.arange(window, dtype=torch.float64)
    angle = 2 * math.pi / window * place[:, None] * place
    cosine, sine = angle.cos(), angle.sin()
    half = window // 2 + 1
    forward = torch.cat([cosine[:, :half], -sine[:, :half]], dim=1)
    both = torch.cat([cosine, sine], dim=1)
    # A real signal's upper frequencies mirror the lower ones: these count twice, but for the first and the middle one.
    twice = torch.full((half, 1), 2.0, dtype=torch.float64)
    twice[0] = twice[-1] = 1
    back = torch.cat([twice * cosine[:half], -twice * sine[:half]]) / window**2
    return forward.float(), both.float(), back.float()


def attend_windows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: tuple[int, int], shift: tuple[int, int]
) -> torch.Tensor:
    """See :func:`moir.networks.edt_body.attend_windows`; every window has a mask of its own, most of them of zeros."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if any(shift):
        ends = []
        for count, side, by in zip(q.shape[1:3], window, shift, strict=True):
            last = _count(count, q) == count - 1
            moved = torch.arange(side, device=q.device) >= side - by
            ends.append((last[:, None] & moved).long())
        rows, columns = ends
        part = (2 * rows[:, None, :, None] + columns[:, None]).flatten(2)  # (down, across, T)
        apart = (part[..., None] != part[..., None, :]).to(scores.dtype)
        scores = scores + OUTSIDE * apart[None, :, :, None]
    return scores.softmax(dim=-1) @ v


def sides(x: torch.Tensor) -> tuple[Any, Any]:
    """Height and width as tensors that stand for sizes; while a graph is recorded, they are tensors already."""
    return torch.as_tensor(x.shape[-2]), torch.as_tensor(x.shape[-1])


def short_of(side: int, x: torch.Tensor) -> tuple[Any, Any]:
    """How many pixels height and width lack to ``side``; 0 where they do not."""
    height, width = sides(x)
    return torch.clamp(side - height, min=0), torch.clamp(side - width, min=0)


def _count(stop: Any, x: torch.Tensor) -> torch.Tensor:
    """0, 1, ..., stop - 1."""
    return torch.arange(stop, device=x.device)
