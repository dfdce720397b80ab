"""The reading process: it sends what has changed, starts again when it dies, and is gone when the UI is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from app.tui.feed import Feed
from app.tui.reading.memory import EVENTS, Memory, in_order
from app.tui.reading.snapshot import Rows, Snapshot, changes, light, merged, opened
from engine.journal.store import Store, now
from tests.app.tui.sample import SNAPSHOT
from tests.conftest import Tiny

PATIENCE = 120  # seconds


def wait(condition: Callable[[], Any]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_what_has_changed_makes_the_new_of_the_old() -> None:
    started = {**SNAPSHOT.trials[-1], "state": "RUNNING", "started": "2026-01-01T11:00"}
    trials = tuple(sorted((*SNAPSHOT.trials[1:-1], started), key=in_order))
    event = {**SNAPSHOT.events[0], "id": 99}
    after = replace(SNAPSHOT, spent=1300.0, trials=trials, events=(event, *SNAPSHOT.events))
    sent = changes(SNAPSHOT, after)
    assert set(sent) == {"spent", "trials", "events"}
    assert sent["events"] == Rows((event,), False)
    assert sent["trials"].all, "a trial is gone, so all are sent"
    assert merged(SNAPSHOT, sent) == after
    assert changes(after, after) == {}
    assert merged(Snapshot(Path("other")), changes(None, after)) == after


def test_one_trial_of_many_is_sent_alone() -> None:
    last = {**SNAPSHOT.trials[-1], "state": "CANCELLED", "finished": "2026-01-01T12:00"}
    after = replace(SNAPSHOT, trials=tuple(sorted((*SNAPSHOT.trials[:-1], last), key=lambda t: t["finished"] or "z")))
    sent = changes(SNAPSHOT, after)
    assert sent["trials"] == Rows((last,), False)
    assert {t["id"]: t for t in merged(SNAPSHOT, sent).trials} == {t["id"]: t for t in after.trials}


def test_events_fall_off_the_end() -> None:
    made = [{**SNAPSHOT.events[0], "id": n} for n in range(EVENTS + 10, 0, -1)]
    before, after = (replace(SNAPSHOT, events=tuple(made[k : k + EVENTS])) for k in (10, 0))
    sent = changes(before, after)
    assert len(sent["events"].rows) == 10
    assert merged(before, sent) == after


def test_memory_reads_what_a_fresh_one_does(stopped: Tiny) -> None:
    with (view := opened(stopped.study)).store, Store(stopped.database) as engine:
        memory = Memory()
        first = light(view, memory)
        assert light(view, memory) == first
        assert all(a is b for a, b in zip(light(view, memory)["trials"], first["trials"], strict=True))
        waiting = [t["id"] for t in first["trials"] if t["state"] == "WAITING"]
        steps = [
            ("UPDATE trials SET state = 'RUNNING', started = ? WHERE id = ?", (now(), waiting[0])),
            ("UPDATE trials SET state = 'COMPLETE', seconds = 1, finished = ? WHERE id = ?", (now(), waiting[0])),
            ("UPDATE trials SET state = 'FAIL', error = 'x', finished = ? WHERE id = ?", (now(), waiting[1])),
            ("UPDATE trials SET state = 'WAITING' WHERE id = ?", (waiting[1],)),
            # the clock was put back meanwhile
            ("UPDATE trials SET state = 'COMPLETE', finished = '2020-01-01' WHERE id = ?", (waiting[1],)),
            ("UPDATE costs SET seconds = seconds + 1, at = ? WHERE id = (SELECT min(id) FROM costs)", (now(),)),
            ("UPDATE proposals SET status = 'held'", ()),
        ]
        for sql, values in steps:
            assert engine.execute(sql, values) >= 1
            engine.event("note", sql)
            known, fresh = light(view, memory), light(view, Memory())
            assert known.pop("burn")[-1:] == fresh.pop("burn")[-1:]
            assert known == fresh


def test_a_reading_process_that_dies_is_started_again(stopped: Tiny) -> None:
    seen: list[Snapshot] = []
    answers: dict[int, Any] = {}
    feed = Feed(stopped.study, seen.append, answers.__setitem__)
    try:
        wait(lambda: seen and seen[-1].board)
        with Store(stopped.database) as engine:
            engine.event("note", "something happened")
        wait(lambda: seen[-1].events[0]["text"] == "something happened")
        asked = feed.ask("trial", seen[-1].trials[0]["id"])
        wait(lambda: asked in answers)
        assert answers[asked]["metrics"]
        feed._process.kill()
        wait(lambda: "started again" in seen[-1].problem)
        wait(lambda: not seen[-1].problem)
        assert seen[-1].trials
    finally:
        feed.close()
    assert not psutil.pid_exists(feed._process.pid)


def test_a_study_without_a_database_has_not_started_until_it_has_one(stopped: Tiny) -> None:
    seen: list[Snapshot] = []
    away = stopped.database.with_suffix(".away")
    stopped.database.rename(away)
    feed = Feed(stopped.study, seen.append, lambda *_: None)
    try:
        wait(lambda: seen and seen[-1].state == "not started")
        away.rename(stopped.database)
        wait(lambda: seen[-1].state == "no engine")
        assert seen[-1].name == "tiny" and seen[-1].trials
    finally:
        feed.close()
