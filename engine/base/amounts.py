"""The budget: device-seconds that may be spent, and how people write them."""

import math
import re

from engine.base.errors import BudgetError

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
BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
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


def budget_text(seconds: float) -> str:
    """An amount of device time as it is written behind --budget, rounded up: `90s`, `14min`, `3h`."""
    for below, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < below:
            return f"{math.ceil(seconds / size)}{unit}"
    return f"{math.ceil(seconds / 3600)}h"


def format_bytes(size: float) -> str:
    """`1234567` → `1.23 MB`."""
    size, unit = next((size / one, unit) for one, unit in BYTES if size >= one or one == 1)
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"


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
