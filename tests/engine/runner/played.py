"""Devices that are played: no worker runs, and a test says what one would say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.runner.device import Events, Listener, Slot, Slots, new_events
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy

React = Callable[["Played", dict[str, Any]], None]


class Played(Slot):
    """A device whose worker does what the test says."""

    def __init__(self, device: str, events: Events, react: React) -> None:
        super().__init__(device, Path(f"{device}.log"), events)
        self.react = react
        self.jobs: list[list[dict[str, Any]]] = []
        self.listener: Listener | None = None

    @property
    def started(self) -> bool:
        return self.listener is not None

    def start(self) -> None:
        self.listener = self.reborn()
        self.tell(event="ready")

    def start_unfit(self, why: str) -> None:
        """Start as a worker whose device cannot train."""
        self.listener = self.reborn()
        self.tell(event="unfit", why=why)

    def tell(self, after: float = 0.0, **event: Any) -> None:
        """Say something, as if the job had run so many seconds longer."""
        self.say(json.dumps(event).encode() + b"\n", after)

    def say(self, line: bytes, after: float = 0.0) -> None:
        assert self.listener is not None
        self.began -= after
        self.listener.feed(line)

    def send(self, message: dict[str, Any]) -> None:
        self.jobs.append(message["jobs"])
        self.react(self, message)

    def kill(self) -> None:
        self.listener = None
        self.reborn()

    def died(self) -> str | None:
        return "the worker died (played)" if self.lost else None


def finish(slot: Played, message: dict[str, Any]) -> None:
    """Every trial ends well after a second each."""
    results = {j["trial"]: {"accuracy": 0.5, "likelihood": 0.4} for j in message["jobs"]}
    slot.tell(after=len(results), event="done", results=results)


def lost(slot: Played, _message: dict[str, Any]) -> None:
    """The device goes for good."""
    slot.lost = True
    assert slot.listener is not None
    slot.listener.end()


def run(opened: OpenStudy, *reacts: React, limit: float = 1e6) -> tuple[Scheduler, list[Played], str]:
    events = new_events()
    return run_on(opened, [Played(f"cpu{i}", events, react) for i, react in enumerate(reacts)], events, limit)


def run_on(
    opened: OpenStudy, slots: list[Played], events: Events, limit: float = 1e6
) -> tuple[Scheduler, list[Played], str]:
    at_work = Scheduler(opened, limit, Slots(slots), events)
    ids = [r["id"] for r in opened.store.query("SELECT id FROM proposals")]
    with opened.store.transaction():
        opened.store.execute("UPDATE trials SET state = 'WAITING'")
    return at_work, slots, at_work.run("probe", ids, limit)


def states(opened: OpenStudy) -> dict[str, int]:
    return {r["state"]: r["n"] for r in opened.store.query("SELECT state, count(*) AS n FROM trials GROUP BY state")}


def sizes(slot: Played) -> list[int]:
    return [len(jobs) for jobs in slot.jobs]
