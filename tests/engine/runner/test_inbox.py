"""Requests of a UI: a real engine obeys pause, resume, cancel, budget and stop, and records each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from engine.base.errors import BudgetError
from engine.journal.requests import ask
from engine.journal.store import Store
from engine.loop.run import Ended, run_loop
from engine.runner.scheduler import Scheduler
from engine.study.opened import open_study
from tests.conftest import Tiny


def running(tiny: Tiny, script: Callable[[Scheduler, Store], Any]) -> tuple[Ended, Store]:
    """Run the probe; the script is called after each event, with a connection of its own, until it returns True."""
    over: list[bool] = []
    other = Store(tiny.database, readonly=True) if tiny.database.exists() else None

    def watch(s: Scheduler) -> None:
        nonlocal other
        other = other or Store(tiny.database, readonly=True)
        if not over and script(s, other):
            over.append(True)

    def attach(s: Scheduler) -> None:
        s.watch = watch

    with (opened := open_study(tiny.study, 1)).store:
        ended = run_loop(opened, until="probe", workers=1, started=attach)
    assert over
    return ended, Store(tiny.database, readonly=True)


@pytest.fixture
def singles(tiny: Tiny) -> Tiny:
    """A study whose trials run one at a time."""
    tiny.set({"train": {"micro_batch": 8}})
    return tiny


def test_a_pause_lets_nothing_start_until_it_is_lifted(singles: Tiny) -> None:
    began: list[float] = []

    def script(s: Scheduler, store: Store) -> bool:
        if not began and s.finished:
            ask(store, "pause", "test")
            began.append(time.monotonic())
            threading.Timer(1.5, lambda: ask(Store(singles.database, readonly=True), "resume", "test")).start()
        return bool(began) and not s.paused and time.monotonic() > began[0] + 1.5

    ended, store = running(singles, script)
    assert ended.how == "done"
    rows = store.query("SELECT kind, outcome, julianday(taken) - julianday(at) AS late FROM requests ORDER BY id")
    assert [(r["kind"], r["outcome"]) for r in rows] == [
        ("pause", "running trials finish, nothing more starts"), ("resume", "goes on"),
    ]  # fmt: skip
    assert all(r["late"] * 86400 < 2 for r in rows)
    starts = store.query("SELECT julianday(started) * 86400 AS moment FROM trials ORDER BY started")
    gaps = [b["moment"] - a["moment"] for a, b in pairwise(starts)]
    assert max(gaps) > 1.0
    assert len(store.query("SELECT 1 FROM events WHERE kind = 'request'")) == 2


def test_a_stop_ends_the_run_and_the_next_goes_on(singles: Tiny) -> None:
    ended, store = running(singles, lambda s, db: s.finished and not s.stopping and ask(db, "stop", "test") is None)
    assert ended.how == "stopped"
    assert store.query("SELECT 1 FROM trials WHERE state = 'WAITING'")
    with (opened := open_study(singles.study, 1)).store:
        assert run_loop(opened, until="probe", workers=1).how == "done"


@pytest.mark.parametrize("pack", [False, True], ids=["alone", "in a pack"])
def test_a_cancelled_trial_is_never_run(tiny: Tiny, pack: bool) -> None:
    tiny.set({"train": {"micro_batch": None} if pack else {"epochs": 4}})
    gone: list[str] = []

    def script(s: Scheduler, store: Store) -> bool:
        if not gone:
            gone.extend(t for slot in s.slots for t in list(slot.trials)[-1:])
            if s.waiting:
                gone.append(s.waiting[-1].id)
            for trial in [*gone, "nothing"] if gone else []:
                ask(store, "cancel", "test", trial)
        return bool(gone)

    ended, store = running(tiny, script)
    assert ended.how == "done"
    states = {r["id"]: r["state"] for r in store.query("SELECT id, state FROM trials")}
    outcomes = [r["outcome"] for r in store.query("SELECT outcome FROM requests ORDER BY id")]
    assert outcomes[-1] == "it neither runs nor waits"
    for trial, outcome in zip(gone, outcomes, strict=False):
        # a training that was already past its last point when it was told ends as it would have
        assert states[trial] == "CANCELLED" or outcome == "it leaves its pack"
    assert set(states.values()) <= {"COMPLETE", "CANCELLED"}
    with (opened := open_study(tiny.study, 1)).store:
        run_loop(opened, until="probe", workers=1)
    assert {r["id"]: r["state"] for r in store.query("SELECT id, state FROM trials")} == states


def test_another_budget_counts_from_now_on(singles: Tiny) -> None:
    ended, store = running(singles, lambda s, db: s.finished and ask(db, "budget", "test", "0.01s") is None)
    assert ended.how == "budget"
    assert store.query("SELECT content FROM results WHERE name = 'budget'")[0]["content"] == "0.01"
    with pytest.raises(BudgetError):
        ask(store, "budget", "test", "much")


def test_a_request_that_nobody_could_take_is_not_obeyed_later(stopped: Tiny) -> None:
    ask(Store(stopped.database, readonly=True), "stop", "test")
    with (opened := open_study(stopped.study, 1)).store:
        assert run_loop(opened, until="probe", workers=1).how == "done"
        (request,) = opened.store.query("SELECT outcome FROM requests")
    assert request["outcome"] == "no engine ran"
