"""Curves with a bound: whoever reports a million points of a curve keeps some thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NAMES = 64  # curves of a trial; further ones are left out
NAME = 200  # characters of a curve's name; a longer one is left out
Values = dict[str, float]


@dataclass
class _Curve:
    """stride: of how many points one is kept. seen, kept: points, of this stride. last: the one that was left out."""

    stride: int = 1
    seen: int = 0
    kept: int = 0
    last: tuple[int, float] | None = None


class Thinning:
    """Keeps the first `most` points of each curve, then every second, then every fourth, and always the last.

    What is kept hangs on the points alone, not on the time. left_out: whether a curve had to be left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._curves: dict[tuple[str, str], _Curve] = {}
        self._names: dict[str, int] = {}
        self.left_out = False

    def keep(self, trial: str, step: int, values: Mapping[str, float]) -> Values:
        """Those of a step's values that are kept."""
        return {name: value for name, value in values.items() if self._keeps(trial, step, name, value)}

    def _keeps(self, trial: str, step: int, name: str, value: float) -> bool:
        curve = self._curves.get((trial, name))
        if curve is None:
            if self._names.get(trial, 0) >= NAMES or len(name) > NAME:
                self.left_out = True
                return False
            self._names[trial] = self._names.get(trial, 0) + 1
            curve = self._curves[trial, name] = _Curve()
        curve.seen += 1
        if curve.seen < curve.stride:
            curve.last = step, value
            return False
        curve.seen, curve.last = 0, None
        curve.kept += 1
        if curve.kept == self._most:
            curve.stride, curve.kept = 2 * curve.stride, self._most // 2
        return True

    def rest(self) -> Iterator[tuple[str, int, Values]]:
        """(trial, step, values) of the last points, where they were left out; then all is forgotten."""
        curves, self._curves, self._names = self._curves, {}, {}
        for (trial, name), curve in curves.items():
            if curve.last:
                yield trial, curve.last[0], {name: curve.last[1]}
