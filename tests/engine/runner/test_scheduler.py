"""The scheduler with devices that are played: packs, memory, lost devices, the budget. No worker runs."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import TrialError
from engine.journal.results import CALIBRATION, Calibration
from engine.journal.store import Row
from engine.proposals import queue as proposal_queue
from engine.runner.device import Events
from engine.runner.scheduler import Scheduler
from engine.search.grid import Paper
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny

React = Callable[["Played", dict[str, Any]], None]


class Played:
    """A device whose worker does what the test says."""

    def __init__(self, device: str, events: Events, react: React) -> None:
        self.device, self.log, self.events, self.react = device, Path(f"{device}.log"), events, react
        self.ready, self.heard, self.lost = False, time.monotonic(), False
        self.trials: dict[str, Row] = {}
        self.seconds = 0.0
        self.jobs: list[list[dict[str, Any]]] = []
        self._started = False

    @property
    def started(self) -> bool:
        return self._started

    def start(self) -> None:
        self._started, self.heard = True, time.monotonic()
        self.tell(event="ready")

    def tell(self, **event: Any) -> None:
        self.events.put((self, event or None))

    def send(self, message: dict[str, Any]) -> None:
        self.jobs.append(message["jobs"])
        self.react(self, message)

    def kill(self) -> None:
        self._started = self.ready = False

    def died(self) -> str | None:
        return "the worker died (played)" if self.lost else None


def finish(slot: Played, message: dict[str, Any]) -> None:
    """Every trial ends well after a second each."""
    results = {j["trial"]: {"accuracy": 0.5, "likelihood": 0.4} for j in message["jobs"]}
    slot.tell(event="done", seconds=float(len(results)), results=results)


@pytest.fixture
def opened(tiny: Tiny) -> OpenStudy:
    """A study with seven waiting trials and a calibration that prefers packs of four."""
    tiny.set({"train": {"micro_batch": None}})
    found = open_study(tiny.study, 1)
    found.record()
    CALIBRATION.put(found.store, found.setup, Calibration(0.01, 0.7, {}, 4, "cpu"))
    for proposal in Paper("probe").propose(found):
        proposal_queue.submit(found, proposal, Scheduler(found, 1e6, [], queue.Queue()).accounts)
        proposal_queue.ensure_trials(found, proposal)
    return found


def run(opened: OpenStudy, *reacts: React, limit: float = 1e6) -> tuple[Scheduler, list[Played], str]:
    events: Events = queue.Queue()
    slots = [Played(f"cpu{i}", events, react) for i, react in enumerate(reacts)]
    at_work = Scheduler(opened, limit, list(slots), events)
    ids = [r["id"] for r in opened.store.query("SELECT id FROM proposals")]
    with opened.store.transaction():
        opened.store.execute("UPDATE trials SET state = 'WAITING'")
    return at_work, slots, at_work.run("probe", ids, limit)


def states(opened: OpenStudy) -> dict[str, int]:
    return {r["state"]: r["n"] for r in opened.store.query("SELECT state, count(*) AS n FROM trials GROUP BY state")}


def sizes(slot: Played) -> list[int]:
    return [len(jobs) for jobs in slot.jobs]


def test_packs_are_as_large_as_the_calibration_says_and_of_equal_size(opened: OpenStudy) -> None:
    _, (one,), how = run(opened, finish)
    assert (how, states(opened), sizes(one)) == ("done", {"COMPLETE": 7}, [4, 3])
    seconds = opened.store.query("SELECT DISTINCT seconds FROM trials")
    assert [r["seconds"] for r in seconds] == [pytest.approx(1.0)]  # each is charged its share


def test_two_devices_end_together(opened: OpenStudy) -> None:
    _, slots, _ = run(opened, finish, finish)
    assert states(opened) == {"COMPLETE": 7}
    assert sorted(n for s in slots for n in sizes(s)) == [3, 4]


def test_out_of_memory_shrinks_the_pack_and_then_the_micro_batch(opened: OpenStudy) -> None:
    def small_device(slot: Played, message: dict[str, Any]) -> None:
        if len(message["jobs"]) > 1 or (message["jobs"][0]["micro_batch"] or 16) > 4:
            slot.tell(event="failed", seconds=0.1, error="RuntimeError: out of memory", memory=True)
        else:
            finish(slot, message)

    _, (one,), how = run(opened, small_device)
    assert (how, states(opened)) == ("done", {"COMPLETE": 7})
    assert sizes(one)[:3] == [4, 2, 1]
    assert [jobs[0]["micro_batch"] for jobs in one.jobs[2:5]] == [None, 8, 4]
    assert all(jobs[0]["micro_batch"] == 4 for jobs in one.jobs[5:])  # remembered
    assert len(opened.store.query("SELECT id FROM events WHERE kind = 'memory'")) == 4


def test_a_lost_device_gives_its_trials_to_the_others_and_no_trial_is_to_blame(opened: OpenStudy) -> None:
    def lost(slot: Played, _message: dict[str, Any]) -> None:
        slot.lost = True
        slot.events.put((slot, None))

    _, (gone, other), how = run(opened, lost, finish)
    assert (how, states(opened)) == ("done", {"COMPLETE": 7})
    assert len(gone.jobs) == 1
    assert sum(sizes(other)) == 7
    assert 1 not in sizes(other)  # packs stay packs


def test_when_every_device_is_lost_it_says_so_and_the_trials_wait(opened: OpenStudy) -> None:
    def lost(slot: Played, _message: dict[str, Any]) -> None:
        slot.lost = True
        slot.events.put((slot, None))

    with pytest.raises(TrialError, match="every device is lost"):
        run(opened, lost)
    assert states(opened) == {"WAITING": 7}


def test_no_pack_is_larger_than_the_budget_allows(opened: OpenStudy) -> None:
    at_work, (one,), how = run(opened, finish, limit=2.5)
    assert how == "budget"
    assert "budget ends here" in at_work.note
    assert sum(sizes(one)) == 2
    assert states(opened) == {"COMPLETE": 2, "WAITING": 5}


def test_the_failing_member_of_a_pack_is_found_and_the_others_finish(opened: OpenStudy) -> None:
    bad = opened.store.query("SELECT id FROM trials ORDER BY samples DESC, seed, id")[1]["id"]

    def breaks(slot: Played, message: dict[str, Any]) -> None:
        if bad in [j["trial"] for j in message["jobs"]]:
            slot.tell(event="failed", seconds=0.1, error="ValueError: a bad row", memory=False)
        else:
            finish(slot, message)

    run(opened, breaks)
    failed = opened.store.query("SELECT id, error FROM trials WHERE state = 'FAIL'")
    assert failed == [{"id": bad, "error": "ValueError: a bad row"}]
    assert states(opened) == {"COMPLETE": 6, "FAIL": 1}
