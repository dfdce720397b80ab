"""What a worker may say: whatever it is, it costs the worker's own trial only, and the engine's own clock charges."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.journal import curves, usage
from engine.runner import local
from engine.runner.device import Slots, new_events
from engine.runner.local import LocalSlot
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy
from tests.conftest import FUZZ
from tests.engine.base.test_lines import anything
from tests.engine.runner.played import Played, finish, run, states

SCORES = {"accuracy": 0.5, "likelihood": 0.4}
# a worker in a few lines: `job` is called with the trial's id for each job
WORKER = """
import json, os, sys, time
def say(**event):
    sys.stdout.write(json.dumps(event) + chr(10))
    sys.stdout.flush()
def done(trial):
    say(event="done", results={trial: {"accuracy": 0.5, "likelihood": 0.4}})
"""
SERVE = """
say(event="ready")
for line in sys.stdin:
    for one in json.loads(line)["jobs"]:
        job(one["trial"])
"""


def scripted(queued: OpenStudy, monkeypatch: pytest.MonkeyPatch, job: str, limit: float = 1e6) -> Scheduler:
    """The probe, run by one real process that is no worker of ours. job: the body of a function of `trial`."""
    code = f"{WORKER}\ndef job(trial):\n" + "".join(f"    {line}\n" for line in job.splitlines()) + SERVE

    def launch(_env: object, log: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", code]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    monkeypatch.setattr(local, "launch", launch)
    queued.store.execute("DELETE FROM results WHERE name = 'calibration'")  # no packs
    events = new_events()
    slot = LocalSlot("cpu0", queued.state / "logs" / "worker.log", events)
    slots = Slots([slot])
    at_work = Scheduler(queued, limit, slots, events)
    try:
        at_work.run("probe", [r["id"] for r in queued.store.query("SELECT id FROM proposals")], limit)
    finally:
        slot.kill()
    return at_work


def first(queued: OpenStudy) -> str:
    """The trial that starts first."""
    return str(queued.store.query("SELECT id FROM trials ORDER BY samples DESC, seed, id")[0]["id"])


def charged(queued: OpenStudy) -> float:
    return float(queued.store.query("SELECT coalesce(sum(seconds), 0) AS n FROM costs")[0]["n"])


BAD = [
    'say(event="curve", trial=trial, step=10**400, values={"loss": 1.0})',
    'say(event="curve", trial=trial, step=10**25, values={"loss": 1.0})',
    'say(event="curve", trial=trial, step=1, values={"loss": "low"})',
    'say(event="curve", trial="another", step=1, values={"loss": 1.0})',
    'say(event="curve", trial="\\ud800", step=1, values={"loss": 1.0})',
    'say(event="usage", seconds=0, values={"cpu": 1.0})',
    'say(event="usage", seconds=1, values={"cpu": float("nan")})',
    'say(event="usage", seconds=1, values={"fans": 1.0})',
    'say(event="done", results={})',
    'say(event="done", results={"../../etc": {"accuracy": 1.0}})',
    'say(event="done", results={trial: {"accuracy": [1]}})',
    'say(event="nonsense", text="\\ud800")',
    'print("Epoch 1/3", flush=True)',
    'os.write(1, b"{" * 3_000_000 + b"\\n")',
    'os.write(1, b"\\xff\\xfe\\x00\\n")',
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_bad_message_fails_its_trial_only(queued: OpenStudy, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    bad = first(queued)
    scripted(queued, monkeypatch, f"if trial == {bad!r}:\n    {line}\n    time.sleep(60)\ndone(trial)")
    assert states(queued) == {"COMPLETE": 6, "FAIL": 1}
    (row,) = queued.store.query("SELECT id, error FROM trials WHERE state = 'FAIL'")
    assert row["id"] == bad
    assert "the worker sent" in row["error"] and "\n" not in row["error"] and len(row["error"]) < 500


def test_half_a_line_of_a_killed_worker_is_none_and_its_trial_is_tried_again(
    queued: OpenStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "killed"
    job = f"""
if not os.path.exists({str(mark)!r}):
    open({str(mark)!r}, "w").close()
    os.write(1, b'{{"event": "curve", "tri')
    os.kill(os.getpid(), 9)
done(trial)"""
    scripted(queued, monkeypatch, job)
    assert states(queued) == {"COMPLETE": 7}
    (crash,) = queued.store.query("SELECT text FROM events WHERE kind = 'crash'")
    assert "the worker died (exit code -9)" in crash["text"]


def test_numbers_that_no_database_takes_are_left_out_and_the_metric_counts(
    queued: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = """
sys.stdout.write('{"event": "curve", "trial": "%s", "step": 1, "values": {"loss": %s}}' % (trial, "9" * 401) + chr(10))
say(event="curve", trial=trial, step=2, values={"loss": float("nan"), "half \\ud800": 1.5})
done(trial)"""
    scripted(queued, monkeypatch, job)
    assert states(queued) == {"COMPLETE": 7}
    points = curves.of_trial(queued.store, first(queued))
    assert [(p.name, p.step, p.value) for p in points] == [("half ?", 2, 1.5), ("loss", 1, None), ("loss", 2, None)]


def test_what_a_worker_takes_is_kept_by_trial_peak_and_mean(queued: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    job = """
say(event="usage", seconds=3.0, values={"cpu": 50.0, "memory": 8e9})
say(event="usage", seconds=1.0, values={"cpu": 90.0, "memory": 5e9})
done(trial)
say(event="usage", seconds=1.0, values={"cpu": 9e3})"""
    scripted(queued, monkeypatch, job)
    assert states(queued) == {"COMPLETE": 7}
    cpu, memory = usage.of_trial(queued.store, first(queued))
    assert (cpu.name, cpu.peak, cpu.latest, cpu.mean, cpu.seconds) == ("cpu", 90.0, 90.0, 60.0, 4.0)
    assert (memory.peak, memory.mean, memory.latest) == (8e9, 7.25e9, 5e9)
    assert len(usage.latest(queued.store, queued.setup, 3)) == 6
    usage.clear(queued.store, first(queued))
    assert not usage.of_trial(queued.store, first(queued))


@pytest.mark.long
def test_400_000_points_are_charged_in_full_and_cost_little(queued: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    loud = first(queued)
    job = f"""
if trial == {loud!r}:
    began = time.time()
    line = '{{"event": "curve", "trial": "%s", "step": %d, "values": {{"loss": 1.0, "rate": 0.1}}}}'
    for at in range(1, 400_001):
        sys.stdout.write(line % (trial, at) + chr(10))
    sys.stdout.flush()
    open({str(queued.state / "took")!r}, "w").write(str(time.time() - began))
done(trial)"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scripted(queued, monkeypatch, job)
    assert states(queued) == {"COMPLETE": 7}
    points = [p.step for p in curves.curve(queued.store, loud, "loss")]
    assert 100 < len(points) <= curves.MOST
    assert points[0] == 1 and points[-1] == 400_000
    assert max(b - a for a, b in pairwise(points)) < 400_000 / 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # kilobytes
    took = float((queued.state / "took").read_text())
    (cost,) = queued.store.query("SELECT seconds FROM costs WHERE trial = ?", (loud,))
    assert took * 0.9 < cost["seconds"] < took + 5


SAYS = [
    "pass",
    'say(event="beat", seconds=-1)',
    'say(event="beat", seconds=1e308)',
    'say(event="beat", seconds=float("nan"))',
]


@pytest.mark.parametrize("says", SAYS, ids=["nothing", "less than nothing", "for ever", "no number"])
def test_the_budget_ends_a_trial_whatever_its_worker_says(
    queued: OpenStudy, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    began = time.monotonic()
    at_work = scripted(queued, monkeypatch, f"for _ in range(100):\n    {says}\n    time.sleep(0.2)", limit=1.5)
    assert at_work.note == "the budget of 1.5 s is spent" or "budget" in at_work.note
    assert time.monotonic() - began < 10
    assert 1.5 < charged(queued) < 2.5  # a heartbeat at most
    assert states(queued) == {"WAITING": 7}


def test_a_worker_that_says_how_long_it_took_is_not_believed(
    queued: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = scripted(
        queued, monkeypatch,
        'say(event="done", seconds=1e308, results={trial: {"accuracy": 0.5, "likelihood": 0.4}})',
    )  # fmt: skip
    assert states(queued) == {"COMPLETE": 7} and at_work.note == ""
    assert 0 < charged(queued) < 10


def test_the_last_words_of_an_ended_worker_are_not_its_successors(queued: OpenStudy) -> None:
    """A trial's end that arrives late must not end the trial that runs then."""

    def late(slot: Played, message: dict[str, Any]) -> None:
        if len(slot.jobs) == 1:
            assert slot.listener is not None
            earlier = slot.listener
            slot.tell(event="failed", error="ValueError: no", memory=False)
            slot.kill()
            slot.start()
            earlier.feed(json.dumps({"event": "done", "results": {}}).encode() + b"\n")
            slot.ready = True
        finish(slot, message)

    _, (one,), how = run(queued, late)
    assert (how, states(queued)) == ("done", {"COMPLETE": 7})
    assert not queued.store.query("SELECT id FROM events WHERE kind = 'crash'")
    assert one.jobs


@pytest.mark.fuzz
def test_no_line_ends_the_engine(queued: OpenStudy) -> None:
    """Any lines to a slot at work: its trial may fail, all others have their results."""
    key = first(queued)
    words = st.sampled_from([key, "ready", "beat", "curve", "done", "failed", "another"])
    like = st.fixed_dictionaries(
        {"event": words},
        optional={
            "trial": words | anything, "step": st.integers() | anything, "error": anything, "memory": st.booleans(),
            "values": st.dictionaries(st.text(st.characters(), max_size=3), st.floats() | st.integers() | anything),
            "results": st.dictionaries(words, st.dictionaries(words, st.floats() | anything, max_size=2), max_size=2),
            "seconds": st.floats() | anything,
        },
    ).map(lambda m: json.dumps(m).encode())  # fmt: skip
    lines = st.lists(like | st.binary(max_size=30), max_size=5)

    @FUZZ
    @given(lines, st.booleans())
    def check(lines: list[bytes], ends: bool) -> None:
        with queued.store.transaction():
            for table in ("curve_points", "metrics", "costs", "events"):
                queued.store.execute(f"DELETE FROM {table}")

        def babbles(slot: Played, message: dict[str, Any]) -> None:
            if key in [j["trial"] for j in message["jobs"]]:
                for line in lines:
                    if slot.listener is not None:
                        slot.say(line + b"\n")
                if ends and slot.listener is not None:
                    slot.lost = False
                    slot.say(b'{"event": "cur')
                    slot.listener.end()
            finish(slot, message) if slot.listener is not None else None

        run(queued, babbles)
        left = states(queued)
        assert left.get("COMPLETE", 0) >= 6 and sum(left.values()) == 7
        assert left.get("WAITING", 0) == 0

    check()


def test_lines_for_the_log_are_written_and_bounded(queued: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two a trial; then one trial sends more than a worker may in its life, and fails."""
    trial = first(queued)
    many = f"for n in range(200 if trial == {trial!r} else 2):\n    say(event='note', text=f'the disk is full\\n{{n}}')"
    scripted(queued, monkeypatch, f"{many}\ndone(trial)")
    told = [r["text"] for r in queued.store.query("SELECT text FROM events WHERE kind = 'worker' ORDER BY id")]
    assert told[0] == "the disk is full 0" and 100 <= len(told) < 400
    error = queued.store.query("SELECT error FROM trials WHERE id = ?", (trial,))[0]["error"]
    assert "more than 100 lines for the log" in error
    assert states(queued) == {"COMPLETE": 6, "FAIL": 1}
