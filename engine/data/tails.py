"""Which end of a statistic's values holds a rare part, and how much of the rows that is: 1, 5 or 10 percent.

Three signs tell a rare part, each seen from the median towards the end:

- far: rows beyond `FAR` times the distance from the median to the quartile of that side. 0.04 % of a normal
  distribution lies there, 1.6 % of an exponential one.
- pile: rows that a valley parts from the bulk. A valley is a step of the histogram with less than a third of the rows
  of a step farther out.
- spike: the outermost value has more than three times the rows of the next one.

Of the signs that hold `LEAST` … `MOST` of the rows, the largest counts. The tail is the smallest of `PERCENTS` that
holds it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTS = (1, 5, 10)
ROOM = 1.2  # a part may have a fifth more rows than its percentage: what lies beside it, and the chance of a sample
LEAST = 0.005  # share of the rows below which leaving a part out changes nothing
FEWEST = 10  # rows that a part has at least
MOST = ROOM * PERCENTS[-1] / 100
FAR = 5.0
STEPS = 4  # of the histogram between median and quartile
TIMES, COUNT = 3, 3  # a pile or spike has TIMES · (rows of its neighbour + COUNT), so that few rows make none

Sorted = NDArray[np.float64]


def tails(values: NDArray[np.float64]) -> tuple[int | None, int | None]:
    """(percent of the rows in the low tail, in the high one), None where there is none.

    values: (rows,) may hold NaN, which play no part.
    """
    low = np.sort(values[np.isfinite(values)])
    return _tail(low), _tail(-low[::-1])


def _tail(low: Sorted) -> int | None:
    """The tail at the start of sorted values."""
    rows = len(low)
    if rows < FEWEST:
        return None
    median = float(low[rows // 2])
    spread = median - float(low[rows // 4])
    parts = (int(np.searchsorted(low, median - FAR * spread)), _pile(low, median, spread), _spike(low))
    rare = [n for n in parts if max(LEAST * rows, FEWEST) <= n <= MOST * rows]
    return next(p for p in PERCENTS if max(rare) <= ROOM * rows * p / 100) if rare else None


def _pile(low: Sorted, median: float, spread: float) -> int:
    """Rows beyond the emptiest valley that parts a pile from the bulk; 0 without one.

    A step of the histogram is a whole number of the values' own steps, so that whole numbers make no valleys.
    """
    if not 1e-100 < spread < 1e100:
        return 0
    own = np.diff(np.unique(low[(low >= low[len(low) // 4]) & (low <= median)]))
    grid = max(float(np.median(own)), 1e-9 * spread)
    step = grid * max(1, round(spread / STEPS / grid))
    below = np.searchsorted(low, median + grid / 2 - step * np.arange(int(FAR * STEPS) + 2))
    counts = -np.diff(below)
    best, fewest = 0, np.inf
    for i, rows in enumerate(counts[:-1]):
        if rows < fewest and below[i + 1] <= MOST * len(low) and counts[i + 1 :].max() >= TIMES * (rows + COUNT):
            best, fewest = int(below[i + 1]), rows
    return best


def _spike(low: Sorted) -> int:
    """Rows of the outermost value, where they stand out from those of the next one; 0 where not."""
    first = int(np.searchsorted(low, low[0], side="right"))
    second = int(np.searchsorted(low, low[first], side="right")) - first if first < len(low) else 0
    return first if first >= TIMES * (second + COUNT) else 0
