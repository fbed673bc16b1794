"""How sure a mean over pictures is."""

from collections.abc import Sequence

import numpy as np

from moir.base.errors import InvalidValueError

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 2**22  # drawn numbers held at once: 32 MB, whatever the number of pictures


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95% confidence interval of the mean over pictures.

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): 10,000 times,
    as many pictures as there are are drawn with replacement; the interval holds the middle 95% of their means. It
    answers how much the mean depends on which pictures are in the set, and nothing else.

    Args:
        values: One finite number per picture, two at least.
        seed: Of the drawing; the same values in the same order and the same seed give the same interval.

    Returns:
        The lower and the upper end, in the unit of the values.

    Raises:
        InvalidValueError: Fewer than two values, or one is not finite.

    Examples:
        >>> low, high = mean_interval([30.0, 31.0, 32.0, 33.0])
        >>> low < 31.5 < high
        True
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or len(data) < 2:
        raise InvalidValueError(f"an interval needs two values at least, got {data.size}")
    if not np.isfinite(data).all():
        raise InvalidValueError(f"an interval needs finite values, got {data[~np.isfinite(data)][0]}")
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(data))
    means = [
        data[generator.integers(0, len(data), (min(rows, RESAMPLES - start), len(data)))].mean(axis=1)
        for start in range(0, RESAMPLES, rows)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return float(low), float(high)
