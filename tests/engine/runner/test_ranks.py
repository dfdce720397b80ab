"""A trial on several devices: its processes start, fail, hang and end as one worker, and all devices are charged."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from engine.base.errors import StudyError
from engine.data.cluster import Node
from engine.journal import events
from engine.proposals import queue
from engine.runner import ray_cluster
from engine.runner.device import Slots, grouped, joint, left_over, new_events
from engine.runner.local import LocalSlot
from engine.runner.messages import Timing
from engine.runner.ranks import Ranks
from engine.runner.ray_cluster import RaySlots
from engine.runner.scheduler import Scheduler, scheduler
from engine.search.grid import Paper
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Row, Tiny, make_tiny, merged, run_djsb, the_error
from tests.engine.runner.played import Played, finish
from tests.engine.tasks.killing import ends_alike

LM: Row = {
    "task": "lm", "dataset": {"images": None}, "evaluation": {"label": None}, "devices_per_trial": 2,
    "train": {"epochs": 1, "batch_size": 8, "micro_batch": 4, "learning_rate": 0.003},
    "ops": {"text_length_filter": {}},
}  # fmt: skip
SHORT: Row = {
    "combine": {"top": 1, "clusters": 0, "max": 1}, "scale": {"rates": []}, "confirm": {"candidates": 1, "seeds": 2}
}  # fmt: skip
LONG: Row = {"train": {"epochs": 150}}


def probe(tiny: Tiny, watch: Callable[[Scheduler], None]) -> tuple[Scheduler, list[str], list[int]]:
    """Run the probe on two cores; what the log warns of, and the processes of the worker that were there at last."""
    with (opened := open_study(tiny.study, 1)).store:
        opened.record()
        with scheduler(opened, 1e6, 2) as at_work:
            for proposal in Paper("probe").propose(opened):
                queue.submit(opened, proposal, at_work.accounts)
                queue.ensure_trials(opened, proposal)
            opened.store.execute("UPDATE trials SET state = 'WAITING'")
            at_work.watch = watch
            ids = [row["id"] for row in opened.store.query("SELECT id FROM proposals")]
            at_work.run("probe", ids, 1e6)
            last = processes(at_work)
        return at_work, [event.text for event in events.warnings(opened.store)], last


def processes(at_work: Scheduler) -> list[int]:
    """The worker's processes, the first rank's first."""
    slot = at_work.slots[0]
    assert isinstance(slot, LocalSlot)
    if slot._process is None:
        return []
    return [slot._process.pid, *(child.pid for child in psutil.Process(slot._process.pid).children())]


def trains(at_work: Scheduler) -> bool:
    """Whether the first trial is under way."""
    at_work.hearing._write()
    return bool(at_work.store.query("SELECT 1 FROM curve_points LIMIT 1"))


def once_it_trains(number: int) -> Callable[[Scheduler], None]:
    """Sends the second rank a signal once; the run is asked to stop after its first trial."""
    sent: list[int] = []

    def watch(at_work: Scheduler) -> None:
        if not sent and trains(at_work):
            sent.append(processes(at_work)[1])
            os.kill(sent[0], number)
        at_work.stopping = at_work.stopping or at_work.finished > 0

    return watch


def test_a_study_on_two_devices_ends_as_on_one_and_is_charged_for_two(tmp_path: Path) -> None:
    made = make_tiny(tmp_path, 120, 12)
    boards = []
    for count in (1, 2):
        folder = made.set(merged(merged(LM, SHORT), {"devices_per_trial": count}), tmp_path / f"on-{count}")
        done = run_djsb("auto", folder, "--workers", count)
        assert done.returncode == 0, done.stderr
        with open_study(folder, 1).store as store:
            rows = store.query("SELECT t.id, t.device, t.seconds, m.value, "
                "(julianday(t.finished) - julianday(t.started)) * 86400 AS wall FROM trials t "
                "JOIN metrics m ON m.trial = t.id WHERE m.name = 'log_perplexity' ORDER BY t.id")  # fmt: skip
            assert {row["device"] for row in rows} == {"cpu0" if count == 1 else "cpu0-1"}
            assert all(row["seconds"] == pytest.approx(count * row["wall"], abs=0.1 * count) for row in rows)
            boards.append({row["id"]: row["value"] for row in rows})
    assert len(boards[0]) == 10
    assert boards[1] == pytest.approx(boards[0], abs=1e-4)


def test_a_rank_that_dies_is_told_in_a_line_and_the_trial_runs_again(tmp_path: Path) -> None:
    made = make_tiny(tmp_path, 120, 12)
    made.set(merged(LM, LONG))
    at_work, told, last = probe(made, once_it_trains(signal.SIGKILL))
    assert at_work.finished == 1
    (crash,) = [text for text in told if "died" in text]
    assert crash.startswith("the process of cpu1 died (exit code -9); see ")
    assert len(last) == 2
    assert all(not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie" for pid in last)


@pytest.mark.long
def test_devices_that_wait_for_each_other_too_long_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJSB_RANK_WAIT", "4")
    made = make_tiny(tmp_path, 120, 12)
    made.set(merged(LM, LONG))
    at_work, told, _ = probe(made, once_it_trains(signal.SIGSTOP))
    assert at_work.finished == 1
    assert any(text.startswith("the 2 devices of the trial have waited for each other for 4 s") for text in told), told


@pytest.mark.timeout(60)
def test_a_rank_that_hangs_once_the_first_has_done_its_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJSB_RANK_WAIT", "0.2")
    monkeypatch.setattr("engine.runner.ranks.join", lambda *_: None)
    ranks, told = Ranks(0, ["cpu0", "cpu1"]), list[str]()

    def failed(error: str, _: bool) -> None:
        told.append(error)
        with ranks._changed:  # so that the block ends
            ranks._said[1] = "done"
            ranks._changed.notify_all()

    with ranks.on_one_job({}, failed):
        pass
    (line,) = told
    assert line.startswith("the 2 devices of the trial have waited for each other")


def test_no_rank_outlives_its_worker(tmp_path: Path) -> None:
    made = make_tiny(tmp_path, 120, 12)
    made.set(merged(LM, LONG))
    found: list[int] = []

    def watch(at_work: Scheduler) -> None:
        if not found and trains(at_work):
            found.extend(processes(at_work))
            os.kill(found[0], signal.SIGKILL)
            at_work.stopping = True

    probe(made, watch)
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in found):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_on_several_devices_is_charged_for_each(queued: OpenStudy) -> None:
    arrived = new_events()
    slot = Played("cpu0-2", arrived, finish)
    slot.devices = ("cpu0", "cpu1", "cpu2")
    at_work = Scheduler(queued, 1e6, Slots([slot]), arrived)
    queued.store.execute("DELETE FROM results WHERE name = 'calibration'")
    at_work.run("probe", [row["id"] for row in queued.store.query("SELECT id FROM proposals")], 1e6)
    seconds = [row["seconds"] for row in queued.store.query("SELECT seconds FROM costs WHERE kind = 'trial'")]
    assert len(seconds) == 7
    assert all(3 <= each < 3.5 for each in seconds)
    timing = Timing(per_sample=0.5, fixed=2.0, packs={"1": 0.5}, fastest_pack=1)
    found = timing.added_to(None, "cpu0-2", 3)
    assert found and (found.per_sample, found.fixed, found.packs) == (1.5, 6.0, {1: 1.5})


def test_devices_are_grouped_and_the_rest_is_told() -> None:
    names = [f"gpu{i}" for i in range(5)]
    assert grouped(names, 2) == [("gpu0", "gpu1"), ("gpu2", "gpu3")]
    assert left_over(names, 2) == "gpu4 stay idle: devices_per_trial is 2, of 5 devices"
    assert left_over(names, 5) is None
    assert [joint(some) for some in (names[:4], ["gpu0", "gpu2"], ["gpu7"])] == ["gpu0-3", "gpu0+2", "gpu7"]
    assert joint(["gpuGPU-1a", "gpuGPU-2b"]) == "gpuGPU-1a+GPU-2b"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"train": {"micro_batch": None}}, "devices_per_trial is 2: a device trains several trials of preset tiny"),
        ({"train": {"batch_size": 2, "micro_batch": 1}, "devices_per_trial": 3}, "each device needs a row of a step"),
    ],
)
def test_what_does_not_suit_several_devices_is_refused(tiny: Tiny, change: Row, why: str) -> None:
    tiny.set(merged({"devices_per_trial": 2}, change))
    assert why in the_error(run_djsb("auto", tiny.study))


def test_fewer_devices_than_a_trial_needs_are_refused(tiny: Tiny) -> None:
    tiny.set({"devices_per_trial": 2})
    with (
        (opened := open_study(tiny.study, 1)).store,
        pytest.raises(StudyError, match="devices_per_trial is 2, and there is cpu0 only; lower it"),
        scheduler(opened, 1.0, 1),
    ):
        pass


@pytest.mark.long
def test_a_race_on_two_devices_that_is_killed_goes_on_and_ends_alike(tmp_path: Path) -> None:
    ends_alike(make_tiny(tmp_path, 120, 12), LM, workers=2)


def test_a_slot_of_a_cluster_has_devices_of_one_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node("a" * 40, "one", 8, 4), Node("b" * 40, "two", 8, 3), Node("c" * 40, "three", 8, 0)]
    monkeypatch.setattr(ray_cluster.cluster, "alive", lambda: nodes)
    told: list[str] = []

    def slots(each: int, workers: int | None = None) -> list[str]:
        found = RaySlots(cast(Any, None), workers, tmp_path, new_events(), told.append, each, False)
        assert all(slot.width == each for slot in found)
        return [slot.device for slot in found]

    assert slots(2) == ["node-aaaaaaaa/gpu0-1", "node-aaaaaaaa/gpu2-3", "node-bbbbbbbb/gpu0-1"]
    assert told == ["node-bbbbbbbb: gpu2 stay idle: devices_per_trial is 2, of 3 devices"]
    assert slots(2, workers=3) == ["node-aaaaaaaa/gpu0-1"]
    with pytest.raises(StudyError, match="devices_per_trial is 5, and no node of the Ray cluster offers more than 4;"):
        slots(5)
