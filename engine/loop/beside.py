"""What happens beside the engine's own thread, and is never in the way of a trial: notices, trackers."""

from __future__ import annotations

import queue
from collections.abc import Callable

from engine.journal.store import Store
from engine.runner.scheduler import Scheduler


class Faults:
    """What went wrong there. Any thread puts it; the engine's own thread, which has the database, writes it down.

    kind: of the events. about: how each begins.
    """

    def __init__(self, store: Store, kind: str, about: str) -> None:
        self._store, self._kind, self._about = store, kind, about
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    def put(self, text: str) -> None:
        """Keep a fault until it is written."""
        self._waiting.put(text)

    def write(self) -> None:
        """Write what has come as warnings."""
        while not self._waiting.empty():
            self._store.event(self._kind, f"{self._about}: {self._waiting.get()}", level="warning")


def after_events(scheduler: Scheduler, look: Callable[[Scheduler], None]) -> None:
    """Look now, and after any of the scheduler's events."""
    seen = scheduler.watch

    def watch(now: Scheduler) -> None:
        seen(now)
        look(now)

    look(scheduler)
    scheduler.watch = watch
