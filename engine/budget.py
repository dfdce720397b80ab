"""The budget: device-seconds that may be spent, and how people write them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from engine.errors import BudgetError

UNITS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(?:gpu|device|core|slot)-)?([a-z]+?)s?")


def parse_budget(text: str) -> float:
    """Device-seconds in `8gpu-days`, `6gpu-hours`, `30min`, `90s`.

    Without a GPU, a device is a worker slot (one CPU core).

    Raises: BudgetError when the text is not a positive amount of device time.
    """
    found = _BUDGET.fullmatch(text.strip().lower())
    seconds = float(found[1]) * UNITS.get(found[2], 0) if found else 0.0
    if seconds <= 0:
        raise BudgetError(
            f"budget {text!r} is not an amount of device time; write it like 8gpu-days, 6gpu-hours or 30min"
        )
    return seconds


def format_seconds(seconds: float) -> str:
    """`93` → `1.6 min`; two significant figures, unit chosen by size."""
    for limit, size, unit in (
        (120, 1, "s"),
        (7200, 60, "min"),
        (172800, 3600, "h"),
        (float("inf"), 86400, "days"),
    ):
        if abs(seconds) < limit:
            number = seconds / size
            return f"{number:.3g} {unit}" if abs(number) < 999.5 else f"{number:.0f} {unit}"
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class Ledger:
    """What is spent and what may be spent, in device-seconds.

    limit: the whole budget. spent: charged so far. reserved: estimates of the trials that run now.
    """

    limit: float
    spent: float
    reserved: float = 0.0

    @property
    def left(self) -> float:
        """Device-seconds that are neither spent nor reserved; never negative."""
        return max(0.0, self.limit - self.spent - self.reserved)

    def fits(self, estimate: float) -> bool:
        """True if a trial of this estimated cost may start."""
        return estimate <= self.left


def estimate_cost(samples: int, measured: Iterable[tuple[int, float]]) -> float | None:
    """Device-seconds that a trial of `samples` trained samples will take.

    measured: (trained samples, device-seconds) of finished trials or of a calibration. A line
    through the measurements when their sizes differ (a trial has a fixed part, its evaluation),
    else in proportion; None when nothing was measured.
    """
    points = [(float(n), s) for n, s in measured if n > 0 and s > 0]
    if not points:
        return None
    sizes = {n for n, _ in points}
    mean_n = sum(n for n, _ in points) / len(points)
    mean_s = sum(s for _, s in points) / len(points)
    if len(sizes) > 1:
        slope = sum((n - mean_n) * (s - mean_s) for n, s in points) / sum((n - mean_n) ** 2 for n, _ in points)
        fixed = mean_s - slope * mean_n
        if slope > 0 and fixed >= 0:
            return fixed + slope * samples
    return mean_s * samples / mean_n
