"""A process that did not run is told from one that works or waits, and a machine that slept from both."""

from __future__ import annotations

from engine.base.pulse import Gap, Pulse


class Clocks:
    """awake: without the machine's sleep. all: with it. used: by this process."""

    awake = all = used = 100.0

    def pulse(self) -> Pulse:
        return Pulse(lambda: self.awake, lambda: self.all, lambda: self.used)

    def run(self, awake: float, slept: float = 0.0, used: float = 0.0) -> None:
        self.awake += awake
        self.all += awake + slept
        self.used += used


def test_gaps() -> None:
    clocks = Clocks()
    pulse = clocks.pulse()
    clocks.run(4)
    assert pulse.gap() is None, "a mere delay"
    clocks.run(600, used=590)
    assert pulse.gap() is None, "it has worked"
    clocks.run(1, slept=3600)
    assert pulse.gap() == Gap(3600, 0)
    clocks.run(720, used=0.1)
    assert pulse.gap() == Gap(0, 720)
    assert pulse.gap() is None
