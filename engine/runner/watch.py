"""Which worker is gone, and which one only stands still: by its beats, its process and the engine's own pulse.

Time in which the engine or a worker stood still is no time of a worker's silence, and is charged only as far as the
worker's own beats say that it worked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.base.amounts import format_seconds
from engine.base.pulse import Pulse
from engine.journal.store import Store
from engine.runner.device import Slot

BEAT = 1.0  # seconds between two beats of a worker
SILENCE = 300.0  # seconds without a beat after which a worker counts as lost
START = 600.0  # seconds that a worker may take to import its libraries
STILL = 5.0  # seconds without a beat after which it is looked whether the worker's process is stopped
PATIENCE = 3600.0  # seconds that a stopped worker is waited for
DRAIN = 0.5  # seconds in which what has come meanwhile is read


@dataclass
class Watch:
    """Of the workers of one engine."""

    store: Store
    slots: Sequence[Slot]
    pulse: Pulse = field(default_factory=Pulse)
    _beats: dict[str, int] = field(default_factory=dict)  # device → beats before the last look
    _stopped: dict[str, float] = field(default_factory=dict)  # device → when its worker was first seen stopped
    _looked: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Look whether the engine or a worker stood still since the last look."""
        if gap := self.pulse.gap():
            time.sleep(DRAIN)
            for slot in self.slots:
                slot.heard = time.monotonic()
                worked = BEAT * (slot.beats - self._beats.get(slot.device, slot.beats))
                slot.began += max(0.0, gap.stopped - worked)
            for what, seconds in (("the machine slept", gap.slept), ("the engine was stopped", gap.stopped)):
                if seconds:
                    text = f"{what} for {format_seconds(seconds)}; its workers go on, and the time is not charged"
                    self.store.event("sleep", text, level="warning")
        now = time.monotonic()
        for slot in self.slots:
            self._look_at(slot, now)
        self._beats = {slot.device: slot.beats for slot in self.slots}
        self._looked = now

    def _look_at(self, slot: Slot, now: float) -> None:
        """Charge a worker nothing while its process is stopped."""
        if not slot.started or now - slot.heard < STILL or not slot.is_stopped():
            if self._stopped.pop(slot.device, None) is not None:
                slot.heard = max(slot.heard, now)  # it goes on now, and may need a moment for its next beat
            return
        if slot.device not in self._stopped:
            self._stopped[slot.device] = slot.heard
            slot.began += now - slot.heard
            text = f"its worker is stopped (SIGSTOP); it is waited for {format_seconds(PATIENCE)} and not charged"
            self.store.event("sleep", text, slot.device, "warning")
        else:
            slot.began += now - self._looked

    def silence(self, slot: Slot) -> str | None:
        """How long nothing has come from a worker, once that is too long."""
        limit = SILENCE if slot.ready else START
        if not slot.started or time.monotonic() - slot.heard <= limit:
            return None
        self.look()  # the engine itself may have been stopped since the last look
        quiet = time.monotonic() - slot.heard
        if quiet <= limit or (quiet <= PATIENCE and slot.is_stopped()):
            return None
        return f"no sign of life for {quiet:.0f} s"
