"""Notices that this process did not run for a while: its machine slept, or it was stopped (SIGSTOP, a debugger, a pause
of its container).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

BEAT = 1.0  # seconds between two looks
LATE = 5.0  # seconds between two looks from which on it was no mere delay

Clock = Callable[[], float]


class Gap(NamedTuple):
    """Seconds that the machine slept, and seconds that only this process stood still."""

    slept: float
    stopped: float


def _boottime() -> float:
    """Seconds since the machine's start, its sleep included; without it where the system does not count that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Pulse:
    """A thread that looks at the clocks. A process that works, or waits for a lock, has no gap."""

    def __init__(self, awake: Clock = time.monotonic, all_: Clock = _boottime, used: Clock = time.process_time) -> None:
        """awake: seconds without the machine's sleep. all_: with it. used: seconds of this process on a core."""
        self._clocks = awake, all_, used
        self._lock, self._end = threading.Lock(), threading.Event()
        self._gap = Gap(0.0, 0.0)
        self._last = self._read()

    def start(self) -> None:
        """Look every second from now on."""
        threading.Thread(target=self._look_on, daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()

    def gap(self) -> Gap | None:
        """What there was since the last call, or None."""
        with self._lock:
            self._look()
            gap, self._gap = self._gap, Gap(0.0, 0.0)
        return gap if any(gap) else None

    def _look_on(self) -> None:
        while not self._end.wait(BEAT):
            with self._lock:
                self._look()

    def _read(self) -> tuple[float, ...]:
        return tuple(clock() for clock in self._clocks)

    def _look(self) -> None:
        before, self._last = self._last, self._read()
        awake, all_, used = (now - then for now, then in zip(self._last, before, strict=True))
        slept = all_ - awake if all_ - awake > LATE else 0.0
        stopped = awake if awake > LATE and used < awake / 2 else 0.0
        self._gap = Gap(self._gap.slept + slept, self._gap.stopped + stopped)
