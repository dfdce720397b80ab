"""Trials on a Ray cluster: several nodes on this machine, and what becomes of lost workers, nodes and engines."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from engine.base.errors import StudyError, TrialError
from engine.loop.run import run_loop
from engine.runner import ray_cluster
from engine.runner.device import new_events
from engine.runner.messages import Failed, Gone, Message, Ready
from engine.runner.ray_cluster import RaySlot, ray_slots
from engine.runner.scheduler import Scheduler
from engine.study.opened import open_study
from tests.conftest import Tiny, make_tiny
from tests.ray_nodes import NODE, PATIENCE, cluster

__all__ = ["cluster"]  # a fixture

DRIVER = """
import json, os, queue, signal, sys, time
from pathlib import Path
import ray
from engine.runner.ray_cluster import ray_slots

handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
events = queue.Queue()
with ray_slots(sys.argv[1] or None, 1, Path(sys.argv[2]), events) as (slot,):
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    slot.start()
    assert events.get().message.event == "ready"
    pids = ray.get(slot._actor.__ray_call__.remote(lambda relay: [os.getpid(), relay._process.pid]))
    print(json.dumps(pids), flush=True)
    time.sleep(600)
"""


def answer(slot: RaySlot) -> Message:
    """The next message, which must be the slot's."""
    arrival = slot.events.get(timeout=PATIENCE)
    assert arrival.slot is slot and arrival.life == slot.life
    slot.ready = slot.ready or arrival.message == Ready()
    return arrival.message


def processes(slot: RaySlot) -> list[int]:
    """Process ids of the slot's actor and of its worker."""
    found: list[int] = ray.get(slot._actor.__ray_call__.remote(lambda relay: [os.getpid(), relay._process.pid]))
    return found


def gone(*pids: int) -> bool:
    """Waits until the processes have ended; whoever should reap them may be slow."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if all(not psutil.pid_exists(p) or psutil.Process(p).status() == psutil.STATUS_ZOMBIE for p in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def slot(cluster: Cluster, tmp_path: Path) -> Iterator[RaySlot]:
    """The slot of the first node."""
    with ray_slots(cluster.address, None, tmp_path / "logs", new_events()) as (only,):
        yield only


def test_a_worker_answers_and_its_end_is_told(slot: RaySlot, tmp_path: Path) -> None:
    assert slot.device.startswith("node-") and slot.device.endswith("/cpu0")
    assert (slot.started, slot.ready, slot.lost, slot.died()) == (False, False, False, None)
    slot.start()
    assert answer(slot) == Ready()
    actor, worker = processes(slot)
    # nothing of this project is imported on the node but by the worker itself
    names = ray.get(slot._actor.__ray_call__.remote(lambda _: list(sys.modules)))
    assert not [n for n in names if n.split(".")[0] in ("engine", "app")]
    slot.send({"do": "nonsense", "study": {}, "prepared": str(tmp_path)})
    answered = answer(slot)
    assert isinstance(answered, Failed)
    assert "Traceback" in slot.log.read_text()
    assert slot.started and slot.died() is None
    os.kill(worker, signal.SIGKILL)
    assert answer(slot) == Gone()
    assert slot.died() == "the worker died (exit code -9)"
    assert slot.started and not slot.lost
    slot.kill()
    assert gone(actor)
    assert (slot.started, slot.ready, slot.lost, slot.died()) == (False, False, False, None)


@pytest.mark.long
def test_a_slot_starts_anew(slot: RaySlot, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/elsewhere/bin/python")
        slot.start()
        assert answer(slot) == Gone()
        assert "/elsewhere/bin/python: No such file or directory; install djsb" in str(slot.died())
        slot.kill()
    slot.start()
    assert answer(slot) == Ready()
    actor, worker = processes(slot)
    os.kill(actor, signal.SIGKILL)
    assert answer(slot) == Gone()
    assert "its Ray actor ended" in str(slot.died())
    assert gone(worker)
    assert not slot.lost


def test_a_node_that_does_not_see_the_study_is_told_in_one_line(slot: RaySlot, tmp_path: Path) -> None:
    slot.start()
    with pytest.raises(TrialError, match=r"^node-\w+ does not see \S+; put the study on a file system .*$"):
        slot.send({"do": "calibrate", "study": {}, "prepared": str(tmp_path / "elsewhere")})


def test_an_address_without_a_cluster_is_told_at_once(tmp_path: Path) -> None:
    for address, why in (("127.0.0.1:1", "Connection refused"), ("ray://here:1", "host:port"), ("here", "host:port")):
        with (
            pytest.raises(StudyError, match=f"^executor.address: .*{why}.*$"),
            ray_slots(address, None, tmp_path, new_events()),
        ):
            pass


@pytest.mark.long
@pytest.mark.slow
def test_a_lost_node_takes_only_its_own_slots(
    cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extra = cluster.add_node(**NODE)
    events = new_events()
    with ray_slots(cluster.address, None, tmp_path / "logs", events) as slots:
        assert len({s.device for s in slots}) == 2
        (lost,) = (s for s in slots if s.device.startswith(f"node-{extra.node_id[:8]}/"))
        (other,) = (s for s in slots if s is not lost)
        for slot in slots:
            slot.start()
        assert [events.get(timeout=PATIENCE).message for _ in slots] == [Ready()] * 2
        pids = processes(lost)
        cluster.remove_node(extra, allow_graceful=False)
        assert answer(lost) == Gone()
        assert lost.died() == "the worker died (its node is lost)"
        assert lost.lost and gone(*pids)
        lost.send({"do": "nonsense"})  # not yet told: nothing happens
        lost.kill()
        assert not lost.started
        other.send({"do": "nonsense", "study": {}, "prepared": str(tmp_path)})
        answered = answer(other)
        assert isinstance(answered, Failed)
        assert not other.lost
        pids = processes(other)
    assert gone(*pids)
    assert capfd.readouterr().out == ""
    with ray_slots(cluster.address, 1, tmp_path / "logs", events) as slots:
        assert [s.device for s in slots] == [other.device]


@pytest.mark.long
@pytest.mark.slow
def test_a_node_that_joins_is_used(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "JOINING", 0.0)
    told: list[str] = []
    with ray_slots(cluster.address, None, tmp_path / "logs", new_events(), told.append) as slots:
        assert len(slots) == 1 and slots.joined() == []
        extra = cluster.add_node(**NODE)
        deadline = time.monotonic() + PATIENCE
        new: list[Any] = []
        while not new and time.monotonic() < deadline:  # it is asked first whether it sees the study
            new = slots.joined()
        (slot,) = new
        assert slot.device == f"node-{extra.node_id[:8]}/cpu0" and slot in slots and slots.joined() == []
        slot.start()
        assert answer(slot) == Ready()
        cluster.remove_node(extra)
        assert answer(slot) == Gone() and slot.lost
        # one that does not see the study is told of, and left aside
        next(tmp_path.glob(".djsb-token-*")).write_text("other")
        blind = cluster.add_node(**NODE)
        try:
            while not told and time.monotonic() < deadline:
                assert slots.joined() == []
        finally:
            cluster.remove_node(blind)
        assert told[0].startswith(
            f"node-{blind.node_id[:8]} has joined the Ray cluster and is not used, as it does not see"
        )
    assert not list(tmp_path.glob(".djsb-token-*"))


@pytest.mark.slow
def test_nothing_outlives_a_killed_engine(cluster: Cluster, tmp_path: Path) -> None:
    """On a cluster, and on a Ray that the engine started itself."""
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, address, str(tmp_path / "logs")],
            env=env, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        for address in (cluster.address, "")
    ]  # fmt: skip
    try:
        # the first line: Ray itself writes none
        pids = [pid for driver in drivers if driver.stdout for pid in json.loads(driver.stdout.readline())]
        assert len(pids) == 4 and all(psutil.pid_exists(p) for p in pids)
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()
    assert gone(*pids)


# -- a study --------------------------------------------------------------------------------------

STUDY = {
    "train": {"epochs": 16, "micro_batch": 8},  # one trial at once: a pack's rounding depends on who is in it
    "ops": {"text_length_filter": {}}, "search": {"strategy": "grid"},
}  # fmt: skip


def query(tiny: Tiny, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(tiny.database)) as db:
        return db.execute(sql).fetchall()


@pytest.mark.long
def test_a_study_goes_on_without_a_lost_node(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It joins, takes a trial and is lost: every trial completes once, every attempt is charged once, and the metrics
    are those of a local run.
    """
    here, there = make_tiny(tmp_path / "here"), make_tiny(tmp_path / "there")
    here.set(STUDY)
    there.set({**STUDY, "executor": {"kind": "ray", "address": cluster.address}})
    with (opened := open_study(here.study, 1)).store:
        assert run_loop(opened, until="probe", workers=1).how == "done"

    monkeypatch.setattr(ray_cluster, "JOINING", 0.0)
    joined: list[Any] = []

    def attach(scheduler: Scheduler) -> None:
        assert len(scheduler.slots) == 1
        joined.append(cluster.add_node(**NODE))
        deadline = time.monotonic() + PATIENCE
        while len(scheduler.slots) < 2 and time.monotonic() < deadline:
            scheduler._welcome()
        idle = [s for s in scheduler.slots if not s.started]
        for s in idle:
            s.start()
        deadline = time.monotonic() + PATIENCE
        while scheduler.events.qsize() < len(idle) and time.monotonic() < deadline:  # so that both take trials
            time.sleep(0.1)
        scheduler.watch = watch

    def watch(scheduler: Scheduler) -> None:
        (victim,) = joined
        (slot,) = (s for s in scheduler.slots if s.device == f"node-{victim.node_id[:8]}/cpu0")
        if victim in cluster.worker_nodes and slot.seconds > 0:
            pids = processes(slot)
            for pid in pids:  # as a machine goes off: not a word from now on
                os.kill(pid, signal.SIGSTOP)
            cluster.remove_node(victim, allow_graceful=False)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    with (opened := open_study(there.study, 1)).store:
        assert run_loop(opened, until="probe", started=attach).how == "done"

    trials = query(there, "SELECT id, state, attempts FROM trials ORDER BY id")
    assert [state for _, state, _ in trials] == ["COMPLETE"] * 4
    (victim,) = joined
    assert query(there, "SELECT subject FROM events WHERE kind = 'joined'") == [(f"node-{victim.node_id[:8]}/cpu0",)]
    crashes = query(there, "SELECT subject, text FROM events WHERE kind = 'crash' ORDER BY subject")
    assert [key for key, _ in crashes] == [key for key, _, attempts in trials if attempts == 2] != []
    assert all(f"node-{victim.node_id[:8]}/cpu0 is lost" in text for _, text in crashes)
    charged = "SELECT trial, COUNT(*), COUNT(DISTINCT id) FROM costs WHERE kind = 'trial' GROUP BY trial ORDER BY trial"
    for (key, _, attempts), (trial, n, distinct) in zip(trials, query(there, charged), strict=True):
        assert key == trial and n == distinct <= attempts <= 2
    final = "SELECT t.seconds, c.seconds FROM trials t JOIN costs c ON c.id = t.id || ':' || t.attempts"
    assert [own == cost for own, cost in query(there, final)] == [True] * 4
    metrics = "SELECT trial, name, value FROM metrics ORDER BY trial, name"
    assert query(there, metrics) == query(here, metrics) != []
