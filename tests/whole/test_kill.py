"""`kill -9` of the engine at random moments: nothing finished is lost or repeated, no cost is charged twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.base.lifetime import state
from engine.base.program_guard import MARK
from tests.conftest import DJSB, Tiny, make_tiny, run_djsb, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("DJSB_TEST_KILLS", 2))  # make test-long: 20
SETTINGS: dict[str, Any] = {
    "search": {"strategy": "race", "top": 2},
    "train": {"epochs": 2, "micro_batch": None},
    "scale": {"rates": [2], "seeds": 1},
    "confirm": {"seeds": 2, "candidates": 1},
}


def query(tiny: Tiny, sql: str) -> list[tuple[Any, ...]]:
    if not tiny.database.exists():
        return []
    with closing(sqlite3.connect(tiny.database, timeout=30)) as db:
        try:
            return db.execute(sql).fetchall()
        except sqlite3.OperationalError:  # killed before the tables were made
            return []


def finished(tiny: Tiny) -> set[tuple[Any, ...]]:
    return set(query(tiny, "SELECT id, attempts, seconds, finished FROM trials WHERE state = 'COMPLETE'"))


def leaderboard(tiny: Tiny) -> list[dict[str, Any]]:
    done = run_djsb("rank", tiny.study, "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def run_and_kill(tiny: Tiny, wait: float) -> int | None:
    """Start the engine, kill it after `wait` seconds; its exit code if it ended before."""
    process = subprocess.Popen(
        [str(DJSB), "auto", str(tiny.study)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(wait)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    seed = int(os.environ.get("DJSB_TEST_SEED", time.time()))
    print(f"DJSB_TEST_SEED={seed}")
    moments = random.Random(seed)
    whole, killed = make_tiny(tmp_path / "whole"), make_tiny(tmp_path / "killed")
    for tiny in (whole, killed):
        tiny.set(SETTINGS)
    assert run_djsb("auto", whole.study, timeout=600).returncode == 0

    kills = 0
    while kills < KILLS:
        before = finished(killed)
        ended = run_and_kill(killed, moments.uniform(0.2, 8))
        assert before <= finished(killed), "a finished trial was lost or ran again"
        kills += ended is None
        if ended is not None:  # it came to its end between two kills: that must be right too, then from the start again
            assert ended == 0
            check(killed, whole)
            shutil.rmtree(killed.study / ".djsb")
    assert run_djsb("auto", killed.study, timeout=600).returncode == 0
    check(killed, whole)


def check(killed: Tiny, whole: Tiny) -> None:
    """A study that was killed on its way ended like one that was not."""
    assert leaderboard(killed) == leaderboard(whole)
    assert query(killed, "SELECT COUNT(*) FROM trials WHERE state != 'COMPLETE'") == [(0,)]
    assert {t[0] for t in finished(killed)} == {t[0] for t in finished(whole)}
    # every attempt is charged once, and the one that finished with what it took
    charged = query(killed, "SELECT trial, COUNT(*), COUNT(DISTINCT id) FROM costs WHERE kind = 'trial' GROUP BY trial")
    attempts = dict(query(killed, "SELECT id, attempts FROM trials"))
    assert all(n == distinct <= attempts[trial] for trial, n, distinct in charged)
    last = query(killed, "SELECT t.seconds, c.seconds FROM trials t JOIN costs c ON c.id = t.id || ':' || t.attempts")
    assert len(last) == len(attempts)
    assert all(own == cost for own, cost in last)


def test_workers_end_with_a_killed_engine(stopped: Tiny) -> None:
    process = subprocess.Popen(
        [str(DJSB), "auto", str(stopped.study), "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not (children := worker_pids(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert children, "no worker was started"
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    until(lambda: not marked(process.pid), 15, "a process outlived the engine")


def worker_pids(parent: int) -> list[int]:
    """Processes below `parent` that are trial workers."""
    import psutil

    try:
        found = psutil.Process(parent).children(recursive=True)
        return [p.pid for p in found if p.cmdline()[-1:] == ["worker"]]
    except psutil.NoSuchProcess:
        return []


QUICK = "import sys, engine.runner.watch as w; w.SILENCE = 4.0; from app.cli.main import run; run()"


@pytest.mark.long
def test_an_engine_that_is_disturbed_comes_to_its_end(tiny: Tiny) -> None:
    """A worker killed at its start, one stopped, the engine stopped, each longer than a silence may last; a lock."""
    tiny.set({"train": {"micro_batch": 8, "epochs": 12}})
    process = subprocess.Popen(
        [sys.executable, "-c", QUICK, "auto", str(tiny.study), "--until", "probe", "--workers", "1"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: worker_pids(process.pid), 120, "no worker was started")
        os.kill(worker_pids(process.pid)[0], signal.SIGKILL)
        for who in (lambda: worker_pids(process.pid)[0], lambda: process.pid):
            until(lambda: query(tiny, RUNNING), 240, "no trial runs")
            pid = who()
            os.kill(pid, signal.SIGSTOP)
            time.sleep(9)
            os.kill(pid, signal.SIGCONT)
            time.sleep(1)
        with closing(sqlite3.connect(tiny.database, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(5)
            other.execute("ROLLBACK")
        _, told = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, told
    assert f"waiting for {tiny.database}, which process {os.getpid()} (" in told
    crashes = [text for (text,) in query(tiny, "SELECT text FROM events WHERE kind = 'crash'")]
    assert len(crashes) == 1 and "exit code -9" in crashes[0] and "again" in crashes[0]
    slept = {text.partition(" is ")[0].partition(" was ")[0] for (text,) in query(tiny, SLEPT)}
    assert slept == {"its worker", "the engine"}
    assert query(tiny, "SELECT DISTINCT state, attempts FROM trials") == [("COMPLETE", 1)]
    until(lambda: not marked(process.pid), 10, "a process outlived the engine")


RUNNING = "SELECT id FROM trials WHERE state = 'RUNNING'"
SLEPT = "SELECT text FROM events WHERE kind = 'sleep'"


def marked(owner: int) -> list[int]:
    """Living processes that bear the mark of a command."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={owner}:".encode() in file.read_bytes() and state(int(file.parent.name)) not in ("", "Z"):
                found.append(int(file.parent.name))
    return found


def until(condition: Callable[[], object], seconds: float, what: str, every: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(every)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_apply_that_is_killed_goes_on_with_its_shards(tmp_path: Path, number: int) -> None:
    """In a folder whose name holds what Data-Juicer takes for syntax."""
    folder = tmp_path / "-a b'c\"d{e}:ü[1]*"
    rows = [{"text": f"row {n}"} for n in range(300_000)]
    data = write_jsonl(folder / "in put.jsonl", rows)
    recipe, out = folder / "re cipe.yaml", folder / "new rows"
    recipe.write_text("process: [{text_length_filter: {min_len: 6}}, {alphanumeric_filter: {min_ratio: 0.1}}]")
    command = ["apply", recipe.name, "--data", data.name, "--out", out.name, "--shard-rows", "9000", "--workers", "1"]
    started = subprocess.Popen([str(DJSB), *command], cwd=folder, stderr=subprocess.PIPE, text=True)
    first = out / "part-000000.jsonl"
    until(first.exists, 120, "no shard was written", every=0.01)
    started.send_signal(number)
    _, told = started.communicate(timeout=60)
    until(lambda: not marked(started.pid), 10, "a process outlived it")
    assert started.returncode == (130 if number == signal.SIGTERM else -signal.SIGKILL), "it ended before the signal"
    if number == signal.SIGTERM:
        assert told.endswith("djsb: interrupted; the same command goes on\n")
    stamp, judged = first.stat().st_mtime_ns, (out / ".djsb-apply/log.jsonl").read_text().count('"start"')
    assert 0 < judged < 30
    other = run_djsb(*command[:-2], "--format", "parquet", cwd=folder)
    assert "part-000000.jsonl exists already" in other.stderr and other.returncode == 1
    done = run_djsb(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    shards = sorted(out.iterdir())
    assert [f.name for f in shards] == [f"part-{n:06d}.jsonl" for n in range(len(shards))]
    assert [json.loads(line) for f in shards for line in f.read_text().splitlines()] == rows[10:]
    assert first.stat().st_mtime_ns == stamp, "a finished shard was written again"
    assert sorted(folder.iterdir()) == sorted([data, recipe, out])


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("wait", [1.0, 2.0])
def test_ctrl_c_in_the_first_seconds_leaves_no_traceback(tiny: Tiny, wait: float) -> None:
    """A terminal sends SIGINT to the whole group: data workers that are starting must leave it to the engine."""
    process = subprocess.Popen(
        [str(DJSB), "auto", str(tiny.study)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told, told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("command", ["auto", "pools"])
def test_a_signal_to_any_command_leaves_no_process(tiny: Tiny, command: str, number: int) -> None:
    """While its data workers start and run."""
    process = subprocess.Popen(
        [str(DJSB), command, str(tiny.study)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(marked(process.pid)) > 1, 60, "nothing was started")
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    until(lambda: not marked(process.pid), 15, "a process outlived it")
    assert "Traceback" not in told, told
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 130, told
        assert told.splitlines()[-1] == "djsb: interrupted; the same command goes on"
