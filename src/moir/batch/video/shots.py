"""Cuts: where one shot ends and the next begins, from small grey pictures of the frames."""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

Small = npt.NDArray[np.float32]

SIZE = (64, 36)
"""Width and height of the small pictures."""

LEAST = 10.0
"""Mean difference of two frames, in 8-bit levels, below which there is no cut: noise and slow movement."""

TIMES = 3.0
"""How many times the usual difference of this shot a cut has: fast movement differs always, a cut once."""

HISTOGRAM = 0.25
"""Share of the pixels that must have changed their brightness: a fast pan moves them, a cut replaces them."""


class CutDetector:
    """Finds hard cuts, frame by frame, one frame late, in constant memory.

    A flash (one frame that differs, after which all is as before) is no cut. Fades and dissolves are not found: within
    them the picture changes slowly, and so does what one routing for both sides gets wrong.

    Examples:
        >>> detector = CutDetector()
        >>> dark, light = np.full((36, 64), 30, np.float32), np.full((36, 64), 200, np.float32)
        >>> cuts = [detector.push(small) for small in (dark, dark, light, light, light)]
        >>> [cut for cut in (*cuts, detector.finish()) if cut is not None]
        [2]
    """

    def __init__(self) -> None:
        self._number = -1
        self._last: Small | None = None
        self._before: Small | None = None
        self._candidate: int | None = None
        self._usual: deque[float] = deque(maxlen=12)

    def push(self, small: Small) -> int | None:
        """Take the next frame; the number of the frame that a cut was found at, or None."""
        self._number += 1
        found = None
        if self._candidate is not None:
            assert self._before is not None
            if not self._differ(self._before, small):  # as before the candidate: it was a flash
                self._last = self._before
            else:
                found = self._candidate
                self._usual.clear()
            self._candidate = None
        if self._last is not None:
            if self._differ(self._last, small):
                self._candidate, self._before = self._number, self._last
            else:
                self._usual.append(difference(self._last, small))
        self._last = small
        return found

    def finish(self) -> int | None:
        """After the last frame: a cut at that frame, or None."""
        return self._candidate

    def _differ(self, one: Small, other: Small) -> bool:
        change = difference(one, other)
        usual = float(np.mean(self._usual)) if self._usual else 0.0
        return change > LEAST and change > TIMES * usual and moved(one, other) > HISTOGRAM


def difference(one: Small, other: Small) -> float:
    """Mean absolute difference, 8-bit levels."""
    return float(np.abs(one - other).mean())


def moved(one: Small, other: Small) -> float:
    """Share of the pixels whose brightness (of 16 steps) the other frame does not have: 0 the same, 1 none."""
    counts = [np.histogram(small, bins=16, range=(0, 256))[0] for small in (one, other)]
    return float(np.abs(counts[0] - counts[1]).sum() / (2 * one.size))


def small_of(frame: Any) -> Small:
    """The small grey picture of a decoded frame, (36, 64), 0..255."""
    grey = frame.reformat(width=SIZE[0], height=SIZE[1], format="gray", interpolation="AREA")
    return grey.to_ndarray().astype(np.float32)
