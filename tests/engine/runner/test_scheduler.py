"""The scheduler with devices that are played: packs, memory, lost devices, the budget. No worker runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.base.durable import written_whole
from engine.base.errors import TrialError
from engine.runner.device import Slots, new_events
from engine.study.opened import OpenStudy
from tests.engine.runner.played import Played, finish, lost, run, run_on, sizes, states


def test_packs_are_as_large_as_the_calibration_says_and_of_equal_size(queued: OpenStudy) -> None:
    _, (one,), how = run(queued, finish)
    assert (how, states(queued), sizes(one)) == ("done", {"COMPLETE": 7}, [4, 3])
    seconds = queued.store.query("SELECT avg(seconds) AS seconds FROM trials")
    assert [r["seconds"] for r in seconds] == [pytest.approx(1.0, abs=0.2)]  # each is charged its share


def test_two_devices_end_together(queued: OpenStudy) -> None:
    _, slots, _ = run(queued, finish, finish)
    assert states(queued) == {"COMPLETE": 7}
    assert sorted(n for s in slots for n in sizes(s)) == [3, 4]


def test_out_of_memory_shrinks_the_pack_and_then_the_micro_batch(queued: OpenStudy) -> None:
    def small_device(slot: Played, message: dict[str, Any]) -> None:
        if len(message["jobs"]) > 1 or (message["jobs"][0]["micro_batch"] or 16) > 4:
            slot.tell(after=0.1, event="failed", error="RuntimeError: out of memory", memory=True)
        else:
            finish(slot, message)

    _, (one,), how = run(queued, small_device)
    assert (how, states(queued)) == ("done", {"COMPLETE": 7})
    assert sizes(one)[:3] == [4, 2, 1]
    assert [jobs[0]["micro_batch"] for jobs in one.jobs[2:5]] == [None, 8, 4]
    assert all(jobs[0]["micro_batch"] == 4 for jobs in one.jobs[5:])  # remembered
    assert len(queued.store.query("SELECT id FROM events WHERE kind = 'memory'")) == 4


def test_out_of_memory_never_trains_some_trials_of_a_comparison_in_another_way(queued: OpenStudy) -> None:
    tight = queued.store.query("SELECT id FROM trials ORDER BY samples DESC, seed, id")[-1]["id"]

    def tight_for_one(slot: Played, message: dict[str, Any]) -> None:
        if tight in [j["trial"] for j in message["jobs"]]:
            slot.tell(after=0.1, event="failed", error="RuntimeError: out of memory", memory=True)
        else:
            finish(slot, message)

    _, (one,), how = run(queued, tight_for_one)
    assert (how, states(queued)) == ("done", {"COMPLETE": 6, "FAIL": 1})
    assert {job["micro_batch"] for jobs in one.jobs for job in jobs} == {None}
    (failed,) = queued.store.query("SELECT id, error FROM trials WHERE state = 'FAIL'")
    assert (
        failed["id"] == tight and "16 rows at once" in failed["error"] and "train.micro_batch to 8" in failed["error"]
    )


def test_a_device_that_cannot_train_is_left_out_with_its_reason(queued: OpenStudy) -> None:
    def unfit(slot: Played, _message: dict[str, Any]) -> None:
        raise AssertionError("it gets no job")

    events = new_events()
    slots = [Played("gpu0", events, unfit), Played("gpu1", events, finish)]
    slots[0].start = lambda: Played.start_unfit(slots[0], "gpu0: torch sees no GPU")  # type: ignore[method-assign]
    _, _, how = run_on(queued, slots, events)
    assert (how, states(queued)) == ("done", {"COMPLETE": 7})
    (told,) = queued.store.query("SELECT text FROM events WHERE kind = 'lost'")
    assert told["text"].startswith("gpu0: torch sees no GPU")


def test_where_no_device_can_train_the_run_ends_with_the_reason(queued: OpenStudy) -> None:
    events = new_events()
    slots = [Played("gpu0", events, finish)]
    slots[0].start = lambda: Played.start_unfit(slots[0], "gpu0: torch sees no GPU")  # type: ignore[method-assign]
    with pytest.raises(TrialError, match=r"every device is lost.*torch sees no GPU"):
        run_on(queued, slots, events)
    assert states(queued) == {"WAITING": 7}


def test_a_lost_device_gives_its_trials_to_the_others_and_no_trial_is_to_blame(queued: OpenStudy) -> None:
    _, (gone, other), how = run(queued, lost, finish)
    assert (how, states(queued)) == ("done", {"COMPLETE": 7})
    assert len(gone.jobs) == 1
    assert sum(sizes(other)) == 7
    assert 1 not in sizes(other)  # packs stay packs


def test_when_every_device_is_lost_it_says_so_and_the_trials_wait(queued: OpenStudy) -> None:
    with pytest.raises(TrialError, match="every device is lost"):
        run(queued, lost)
    assert states(queued) == {"WAITING": 7}


def test_no_pack_is_larger_than_the_budget_allows(queued: OpenStudy) -> None:
    at_work, (one,), how = run(queued, finish, limit=2.5)
    assert how == "budget"
    assert "budget ends here" in at_work.note
    assert sum(sizes(one)) == 2
    assert states(queued) == {"COMPLETE": 2, "WAITING": 5}


def test_the_failing_member_of_a_pack_is_found_and_the_others_finish(queued: OpenStudy) -> None:
    bad = queued.store.query("SELECT id FROM trials ORDER BY samples DESC, seed, id")[1]["id"]

    def breaks(slot: Played, message: dict[str, Any]) -> None:
        if bad in [j["trial"] for j in message["jobs"]]:
            slot.tell(after=0.1, event="failed", error="ValueError: a bad row", memory=False)
        else:
            finish(slot, message)

    run(queued, breaks)
    failed = queued.store.query("SELECT id, error FROM trials WHERE state = 'FAIL'")
    assert failed == [{"id": bad, "error": "ValueError: a bad row"}]
    assert states(queued) == {"COMPLETE": 6, "FAIL": 1}


def test_trials_of_a_device_that_is_left_go_on_from_their_states(
    queued: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def back(slots: Slots, busy: bool) -> list[str]:
        for slot in slots:
            slot.leaving = slot.leaving if slot.trials else ""
        return ["it is there again"]

    monkeypatch.setattr(Slots, "tend", back)
    first: list[dict[str, Any]] = []

    def leaves(slot: Played, message: dict[str, Any]) -> None:
        if first:
            return finish(slot, message)
        first.extend(message["jobs"])
        for job in first:
            with written_whole(Path(f"{job['park']}-4-{job['samples']}.safetensors")) as scratch:
                scratch.write_bytes(b"state")
        slot.leaving = "its job ends"
        slot.tell(after=2.0, event="done", parked={job["trial"]: 4 for job in first})
        return None

    _, (slot,), how = run(queued, leaves)
    assert (how, states(queued)) == ("done", {"COMPLETE": 7})
    again = [job for job in slot.jobs[1] if job["trial"] in {j["trial"] for j in first}]
    left = ["4", f"{first[0]['samples']}.safetensors"]
    assert [Path(job["resume"]).name.split("-")[1:] for job in again] == [left] * 4
    assert not list(queued.state.glob("paused/*"))  # what was broken off is of no use to any other
    charged = {r["id"]: r["seconds"] for r in queued.store.query("SELECT id, seconds FROM costs WHERE kind = 'trial'")}
    assert all(charged[f"{job['trial']}:1"] == pytest.approx(0.5, abs=0.2) for job in first)
    assert all(f"{job['trial']}:2" in charged for job in first)
    told = queued.store.query("SELECT text FROM events WHERE kind = 'parked'")
    assert [t["text"] for t in told] == ["its job ends: it goes on after 4 samples"] * 4


def test_a_worker_that_breaks_trials_off_unasked_is_ended(queued: OpenStudy) -> None:
    first: list[Any] = []

    def leaves(slot: Played, message: dict[str, Any]) -> None:
        if first:
            return finish(slot, message)
        first.append(message)
        return slot.tell(event="done", parked={j["trial"]: 4 for j in message["jobs"]})

    run(queued, leaves)
    assert states(queued) == {"COMPLETE": 7}
    assert len(queued.store.query("SELECT 1 FROM events WHERE kind = 'crash'")) == len(first[0]["jobs"])


def test_a_device_that_was_taken_away_comes_back_and_no_trial_is_to_blame(queued: OpenStudy) -> None:
    def taken(slot: Played, message: dict[str, Any]) -> None:
        if len(slot.jobs) > 3:
            return finish(slot, message)
        slot.taken = True
        slot.died = lambda: "its job was preempted"  # type: ignore[method-assign]
        assert slot.listener is not None
        return slot.listener.end()

    _, (slot,), how = run(queued, taken)
    assert (how, states(queued)) == ("done", {"COMPLETE": 7})
    assert not queued.store.query("SELECT 1 FROM events WHERE kind = 'crash'")
    assert len(queued.store.query("SELECT 1 FROM events WHERE kind = 'taken'")) == sum(sizes(slot)[:3])
