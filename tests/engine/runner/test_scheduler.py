"""The scheduler with devices that are played: packs, memory, lost devices, the budget. No worker runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import TrialError
from engine.journal.results import CALIBRATION, Calibration
from engine.journal.store import Row
from engine.proposals import queue as proposal_queue
from engine.runner.device import Events, Listener, Slot, new_events
from engine.runner.scheduler import Scheduler
from engine.search.grid import Paper
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny

React = Callable[["Played", dict[str, Any]], None]


class Played(Slot):
    """A device whose worker does what the test says."""

    def __init__(self, device: str, events: Events, react: React) -> None:
        super().__init__(device, Path(f"{device}.log"), events)
        self.react = react
        self.jobs: list[list[Row]] = []
        self.listener: Listener | None = None

    @property
    def started(self) -> bool:
        return self.listener is not None

    def start(self) -> None:
        self.listener = self.reborn()
        self.tell(event="ready")

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


@pytest.fixture
def opened(tiny: Tiny) -> OpenStudy:
    """A study with seven waiting trials and a calibration that prefers packs of four."""
    tiny.set({"train": {"micro_batch": None}})
    found = open_study(tiny.study, 1)
    found.record()
    CALIBRATION.put(found.store, found.setup, Calibration(0.01, 0.7, {}, 4, "cpu"))
    for proposal in Paper("probe").propose(found):
        proposal_queue.submit(found, proposal, Scheduler(found, 1e6, [], new_events()).accounts)
        proposal_queue.ensure_trials(found, proposal)
    return found


def run(opened: OpenStudy, *reacts: React, limit: float = 1e6) -> tuple[Scheduler, list[Played], str]:
    events = new_events()
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
    seconds = opened.store.query("SELECT avg(seconds) AS seconds FROM trials")
    assert [r["seconds"] for r in seconds] == [pytest.approx(1.0, abs=0.2)]  # each is charged its share


def test_two_devices_end_together(opened: OpenStudy) -> None:
    _, slots, _ = run(opened, finish, finish)
    assert states(opened) == {"COMPLETE": 7}
    assert sorted(n for s in slots for n in sizes(s)) == [3, 4]


def test_out_of_memory_shrinks_the_pack_and_then_the_micro_batch(opened: OpenStudy) -> None:
    def small_device(slot: Played, message: dict[str, Any]) -> None:
        if len(message["jobs"]) > 1 or (message["jobs"][0]["micro_batch"] or 16) > 4:
            slot.tell(after=0.1, event="failed", error="RuntimeError: out of memory", memory=True)
        else:
            finish(slot, message)

    _, (one,), how = run(opened, small_device)
    assert (how, states(opened)) == ("done", {"COMPLETE": 7})
    assert sizes(one)[:3] == [4, 2, 1]
    assert [jobs[0]["micro_batch"] for jobs in one.jobs[2:5]] == [None, 8, 4]
    assert all(jobs[0]["micro_batch"] == 4 for jobs in one.jobs[5:])  # remembered
    assert len(opened.store.query("SELECT id FROM events WHERE kind = 'memory'")) == 4


def test_a_lost_device_gives_its_trials_to_the_others_and_no_trial_is_to_blame(opened: OpenStudy) -> None:
    _, (gone, other), how = run(opened, lost, finish)
    assert (how, states(opened)) == ("done", {"COMPLETE": 7})
    assert len(gone.jobs) == 1
    assert sum(sizes(other)) == 7
    assert 1 not in sizes(other)  # packs stay packs


def test_when_every_device_is_lost_it_says_so_and_the_trials_wait(opened: OpenStudy) -> None:
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
            slot.tell(after=0.1, event="failed", error="ValueError: a bad row", memory=False)
        else:
            finish(slot, message)

    run(opened, breaks)
    failed = opened.store.query("SELECT id, error FROM trials WHERE state = 'FAIL'")
    assert failed == [{"id": bad, "error": "ValueError: a bad row"}]
    assert states(opened) == {"COMPLETE": 6, "FAIL": 1}
