"""Workers that only stand still are not called dead, what stood still is not charged, what died is tried again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.base.errors import TrialError
from engine.base.pulse import Pulse
from engine.runner.device import Slots, new_events
from engine.runner.scheduler import Scheduler
from engine.runner.watch import PATIENCE, SILENCE
from engine.study.opened import OpenStudy
from tests.engine.runner.played import Played, React, finish, states


class Stoppable(Played):
    """A worker whose process may be stopped."""

    stopped = False

    def is_stopped(self) -> bool:
        return self.stopped


def engine(queued: OpenStudy, *reacts: React) -> tuple[Scheduler, list[Stoppable]]:
    events = new_events()
    slots = [Stoppable(f"cpu{i}", events, react) for i, react in enumerate(reacts)]
    return Scheduler(queued, 1e6, Slots(slots), events), slots


def run(queued: OpenStudy, at_work: Scheduler) -> None:
    assert at_work.run("probe", [r["id"] for r in queued.store.query("SELECT id FROM proposals")], 1e6) == "done"
    assert states(queued) == {"COMPLETE": 7}


def events(queued: OpenStudy, kind: str) -> list[str]:
    return [r["text"] for r in queued.store.query("SELECT text FROM events WHERE kind = ?", [kind])]


@pytest.mark.parametrize(("beats", "charged"), [(3, 3), (10_000, 1000)])
def test_while_the_engine_was_stopped_workers_are_charged_by_their_beats_only(
    queued: OpenStudy, beats: int, charged: float
) -> None:
    clock = [0.0]

    def sleep_once(slot: Played, message: dict[str, Any]) -> None:
        if len(slot.jobs) == 1:  # the engine stands still for 1000 s; meanwhile the worker beats and ends
            clock[0] += 1000
            slot.began -= 1000
            slot.heard -= 1000
            for _ in range(beats):
                slot.tell(event="beat")
        results = {j["trial"]: {"accuracy": 0.5, "likelihood": 0.4} for j in message["jobs"]}
        slot.tell(event="done", results=results)

    at_work, _ = engine(queued, sleep_once)
    at_work.workers.pulse = Pulse(lambda: clock[0], lambda: clock[0], lambda: 0.0)
    run(queued, at_work)
    assert at_work.accounts.spent() == pytest.approx(charged, abs=2)
    (text,) = events(queued, "sleep")
    assert text.startswith("the engine was stopped for 16.7 min")
    assert events(queued, "crash") == []


def test_a_stopped_worker_is_waited_for_and_not_charged(queued: OpenStudy) -> None:
    seen: list[str] = []

    def stop_once(slot: Played, message: dict[str, Any]) -> None:
        assert isinstance(slot, Stoppable)
        if len(slot.jobs) == 1:
            slot.stopped, slot.held = True, message  # type: ignore[attr-defined]
            slot.began -= 2 * SILENCE
            slot.heard -= 2 * SILENCE
        else:
            finish(slot, message)

    def go_on(at_work: Scheduler) -> None:
        (slot,) = at_work.slots
        if slot.trials and slot.stopped and (texts := events(queued, "sleep")):  # type: ignore[attr-defined]
            seen.extend(texts)
            slot.stopped = False  # type: ignore[attr-defined]
            finish(slot, slot.held)  # type: ignore[arg-type, attr-defined]

    at_work, _ = engine(queued, stop_once)
    at_work.watch = go_on
    run(queued, at_work)
    assert seen == ["its worker is stopped (SIGSTOP); it is waited for 60 min and not charged"]
    assert events(queued, "crash") == []
    assert at_work.accounts.spent() == pytest.approx(7, abs=3)


def test_a_worker_that_goes_on_has_time_for_its_next_beat(queued: OpenStudy) -> None:
    scheduler, (slot,) = engine(queued, finish)
    slot.start()
    slot.ready, slot.stopped, slot.heard = True, True, time.monotonic() - 2 * SILENCE
    assert scheduler.workers.silence(slot) is None
    slot.stopped = False
    assert scheduler.workers.silence(slot) is None


@pytest.mark.parametrize("quiet", [(False, 2 * SILENCE), (True, 2 * PATIENCE)])
def test_a_worker_that_stays_silent_is_lost_all_the_same(queued: OpenStudy, quiet: tuple[bool, float]) -> None:
    def silent_once(slot: Played, message: dict[str, Any]) -> None:
        assert isinstance(slot, Stoppable)
        slot.stopped = len(slot.jobs) == 1 and quiet[0]
        if len(slot.jobs) == 1:
            slot.heard = time.monotonic() - quiet[1]
        else:
            finish(slot, message)

    at_work, _ = engine(queued, silent_once)
    run(queued, at_work)
    assert all("no sign of life for" in text for text in events(queued, "crash"))
    assert events(queued, "crash")


def test_what_is_no_trial_is_tried_again_once(queued: OpenStudy) -> None:
    def die(times: int) -> React:
        def react(slot: Played, _message: dict[str, Any]) -> None:
            assert slot.listener is not None
            if len(slot.jobs) <= times:
                slot.listener.end()
            else:
                slot.tell(event="done", scores={"f1": 0.5})

        return react

    at_work, _ = engine(queued, die(1))
    done, _ = at_work.alone("ask", "asking a prompt", jobs=[])
    assert done.scores == {"f1": 0.5}
    (text,) = events(queued, "crash")
    assert text == "asking a prompt failed: the worker is gone; see cpu0.log; it is tried again"

    at_work, slots = engine(queued, die(9))
    with pytest.raises(TrialError, match=r"asking a prompt failed: the worker is gone; see cpu0.log$"):
        at_work.alone("ask", "asking a prompt", jobs=[])
    assert len(slots[0].jobs) == 2


def test_an_engine_that_is_to_end_at_once_waits_for_nothing(queued: OpenStudy) -> None:
    at_work, _ = engine(queued, lambda slot, message: setattr(at_work, "aborting", True))
    with pytest.raises(KeyboardInterrupt):
        at_work.alone("score", "scoring the rows", jobs=[])
