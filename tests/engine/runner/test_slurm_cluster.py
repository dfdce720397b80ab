"""Trials in Slurm's jobs: by submitit's local executor, and on a cluster of one node where Slurm is installed."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.base.errors import StudyError
from engine.journal.results import CALIBRATION, Allocated, Calibration
from engine.proposals import queue
from engine.runner import slurm_cluster, slurm_jobs, slurm_slot
from engine.runner.device import Bill, Slots, new_events
from engine.runner.messages import Done, Gone, Message, Note, Ready
from engine.runner.scheduler import Scheduler, scheduler
from engine.runner.slurm_cluster import SlurmSlots
from engine.runner.slurm_queue import Seen, SlurmQueue, seconds_of
from engine.runner.slurm_relay import Relay
from engine.runner.slurm_slot import SlurmSlot
from engine.search.grid import Paper
from engine.settings.running import ExecutorSection, SlurmSection
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny
from tests.slurm_cluster import needs_slurm, running, slurm

PATIENCE = 60.0
STAND_IN = Path(__file__).with_name("stand_in.py")


class Local(SlurmQueue):
    """What Slurm would say of the jobs of submitit's local executor, which are processes."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.began: dict[str, float] = {}
        self.cancelled: list[str] = []

    def jobs(self) -> dict[str, Seen]:
        return {job: self._seen(job) for job in self.ids}

    def _seen(self, job: str) -> Seen:
        there = psutil.pid_exists(int(job)) and psutil.Process(int(job)).status() != psutil.STATUS_ZOMBIE
        state = "RUNNING" if there else "CANCELLED" if job in self.cancelled else "COMPLETED"
        return Seen(job, state, 0, self.began[job], time.time() - self.began[job], None, None, "None", "test")

    def accounted(self, job: str) -> dict[int, Seen]:
        return {}

    def cancel(self, jobs: Any) -> None:
        for job in jobs:
            self.cancelled.append(job)
            if psutil.pid_exists(int(job)):
                os.kill(int(job), signal.SIGTERM)

    def signal(self, job: str, number: int) -> None:
        """Send the job's own process a signal, as Slurm does."""
        (relay,) = [p for p in psutil.Process(int(job)).children() if "submitit.core._submit" in p.cmdline()]
        relay.send_signal(number)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Local:
    """Jobs are processes of this machine, and workers stand-ins that take 10 steps of 0.05 s for a trial."""
    found = Local()
    submit = slurm_jobs.submitted

    def submitted(*given: Any) -> str:
        job = submit(*given, cluster="local")
        found.ids.append(job)
        found.began[job] = time.time()
        return job

    monkeypatch.setattr(slurm_jobs, "submitted", submitted)
    stand_in(monkeypatch, tmp_path, 10, 0.05)
    monkeypatch.setattr(slurm_cluster, "POLL", 0.2)
    monkeypatch.setattr(slurm_slot, "FATE", 3.0)
    return found


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, steps: int, seconds: float) -> None:
    command = [sys.executable, "-S", str(STAND_IN), str(steps), str(seconds), str(folder / "trainings.log")]
    monkeypatch.setattr(slurm_slot, "WORKER", command)


def executor(**slurm: Any) -> ExecutorSection:
    asked = {"gpus": 0, "cpus": 1, "jobs": 1, "time": "10min", "notice": 5, **slurm}
    return ExecutorSection.model_validate({"kind": "slurm", "address": "127.0.0.1", "slurm": asked})


@pytest.fixture
def slots(local: Local, tmp_path: Path) -> Iterator[SlurmSlots]:
    """One job of two slots."""
    found = SlurmSlots(executor(cpus=2), None, tmp_path / "state" / "logs", new_events(), 1, False, local)
    yield found
    found.close()


def answer(slot: SlurmSlot) -> Message:
    """The slot's next message."""
    arrival = slot.events.get(timeout=PATIENCE)
    assert arrival.slot is slot and arrival.life == slot.life
    slot.ready = slot.ready or arrival.message == Ready()
    return arrival.message


def until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_answers_dies_and_starts_anew_in_the_same_job(slots: SlurmSlots, local: Local) -> None:
    (job,), (slot, other) = slots.jobs, slots
    assert [s.device for s in slots] == ["slurm0/cpu0", "slurm0/cpu1"] and not slot.started
    slot.start()
    slot.start()  # it waits: nothing more is submitted
    assert answer(slot) == Ready() and slot.started and not other.started
    other.start()
    assert answer(other) == Ready()
    slot.send({"do": "environment", "names": ["DJSB_DEVICE", "CUDA_VISIBLE_DEVICES", "DJSB_OWNER"]})
    assert answer(slot) == Note(text="cpu0  -") and answer(slot) == Done()
    slot.send({"do": "exit", "code": 3})
    assert answer(slot) == Gone() and slot.died() == "the worker died (exit code 3)" and not slot.taken
    slot.kill()
    assert (slot.started, slot.died()) == (False, None)
    slot.start()
    assert answer(slot) == Ready()
    assert len(local.ids) == 1 and job.id == local.ids[0]
    bill = slots.bills()[0]
    assert bill.taken.key == f"slurm:{job.id}:0" and bill.taken.seconds > 0 and bill.used == 0 and not bill.final
    slots.close()
    assert slots.bills()[0].final and not local.jobs()[local.ids[0]].is_there


def test_a_job_that_is_about_to_end_is_left_and_another_takes_its_place(slots: SlurmSlots, local: Local) -> None:
    (job,), (slot, other) = slots.jobs, slots
    slot.start()
    assert answer(slot) == Ready()
    slot.trials = {"t": None}  # type: ignore[dict-item]
    local.signal(local.ids[0], signal.SIGUSR2)  # as at the end of its time
    until(lambda: slot.leaving)
    until(lambda: other.leaving)
    assert slot.leaving == "its job's time ends"
    slots.tend(True)
    assert slot.is_linked and job.id == local.ids[0]  # a trial is there still
    slot.trials = {}
    assert any("is left" in line for line in slots.tend(True))
    until(lambda: not local.jobs()[local.ids[0]].is_there)
    assert slot.events.empty() and not slot.started and not slot.leaving
    slot.start()
    assert answer(slot) == Ready() and len(local.ids) == 2


def test_a_job_that_is_lost_is_no_trials_fault_and_nothing_of_it_is_left(slots: SlurmSlots, local: Local) -> None:
    slot = slots[0]
    slot.start()
    assert answer(slot) == Ready()
    below = psutil.Process(int(local.ids[0])).children(recursive=True)
    local.cancelled.append(local.ids[0])
    workers = [process for process in below if "stand_in.py" in " ".join(process.cmdline())]
    for process in [psutil.Process(int(local.ids[0])), *below]:
        if process not in workers:
            process.kill()
    assert answer(slot) == Gone()
    assert slot.taken and slot.died() == f"job {local.ids[0]} ended: CANCELLED"
    assert psutil.wait_procs(below, 10)[1] == []  # the worker ends with its relay
    slot.kill()
    until(lambda: slots.jobs[0].id is None)
    slot.start()
    assert answer(slot) == Ready() and len(local.ids) == 2


def test_a_job_for_which_nothing_waits_is_let_go(slots: SlurmSlots, local: Local) -> None:
    slots.settings = slots.settings.model_copy(update={"idle": 0.1})
    slots[0].start()
    assert answer(slots[0]) == Ready()
    slots.tend(busy=True)
    assert slots[0].is_linked
    time.sleep(0.2)
    assert "as no trial waits for it" in slots.tend(busy=False)[-1]
    until(lambda: not local.jobs()[local.ids[0]].is_there)


def test_jobs_that_end_before_their_workers_come_are_given_up(
    slots: SlurmSlots, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_addresses", [("127.0.0.1", 9)])
    monkeypatch.setattr("engine.runner.slurm_relay.PATIENCE", 0.1)  # pickled by value
    slot = slots[0]
    slot.start()
    until(lambda: slots.jobs[0].id is None)
    slot.start()
    refused = answer(slot)
    assert f"job {local.ids[1]} ended (COMPLETED) before its workers came; see" in refused.why  # type: ignore[union-attr]


def test_strangers_are_not_served(slots: SlurmSlots) -> None:
    import socket

    with socket.create_connection(slots._addresses[0]) as stranger:
        stranger.settimeout(PATIENCE)
        stranger.sendall(b"\x00\x00\x00\x04nope")
        while stranger.recv(1000):
            pass
    assert not any(slot.is_linked for slot in slots)


def test_what_a_study_asks_of_slurm_runs_nothing_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bad in (
        {"partition": "a b"}, {"account": "x\n. evil"}, {"sbatch": {"output": "f"}}, {"sbatch": {"wrap": "x"}},
        {"sbatch": {"nice": "1\nrm -r x"}}, {"setup": ["x"]}, {"time": "30s"}, {"time": "2min", "notice": 90},
        {"memory": "lots"}, {"sbatch": {"prolog": "x"}},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            SlurmSection.model_validate(bad)
    asked = executor(gpus=8, cpus=2, partition="a100", sbatch={"nice": 100, "exclusive": True}, memory="64G").slurm
    monkeypatch.setenv("OPENAI_API_KEY", "sk-" + "x" * 40)
    monkeypatch.setenv("DJSB_OWNER", "1:2:3")
    told = slurm_jobs.parameters(asked, "name")
    exported = told["slurm_additional_parameters"]["export"].split(",")  # type: ignore[index]
    assert "PATH" in exported and not {"OPENAI_API_KEY", "DJSB_OWNER"} & {*exported}
    assert (told["gpus_per_node"], told["cpus_per_task"], told["slurm_partition"]) == (8, 16, "a100")
    first, second = slurm_jobs.asked_for(asked, None, 4)
    assert first == (
        "slurm: up to 1 job(s) at once, each of 8 GPU(s) and 16 CPU core(s) of one node for 10min; partition a100, "
        "memory 64G; --nice=100, --exclusive=True"
    )
    assert second.startswith("slurm: 2 trial(s) at once in a job;")
    with pytest.raises(StudyError, match=r"^devices_per_trial is 9, and a job has 8; raise executor.slurm.gpus"):
        slurm_jobs.asked_for(asked, None, 9)
    (tmp_path / "setup.sh").write_text("module load cuda\n")
    monkeypatch.setenv("DJSB_SLURM_SETUP", str(tmp_path / "setup.sh"))
    assert slurm_jobs.asked_for(asked, None, 1)[2].startswith("slurm: jobs begin with 1 line(s) of")
    assert "module load cuda" in slurm_jobs.parameters(asked, "name")["slurm_setup"]  # type: ignore[operator]


def test_each_slot_has_its_share_of_the_gpus_that_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay([], b"", "", [2, 2])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-6,7")
    assert [relay._granted(at)["CUDA_VISIBLE_DEVICES"] for at in (0, 1)] == ["4,5", "GPU-6,7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert relay._granted(1) == {}


def test_slurms_times_are_read() -> None:
    assert [seconds_of(t) for t in ("1-02:03:04", "02:03:04", "03:04", "INVALID")] == [93784.0, 7384.0, 184.0, 0.0]


# -- trials ---------------------------------------------------------------------------------------


@pytest.fixture
def many(tiny: Tiny) -> Callable[..., OpenStudy]:
    """A study with 25 waiting trials, whose calibration is known."""

    def made(asked: ExecutorSection) -> OpenStudy:
        tiny.set({"search": {"seeds": 3}, "executor": asked.model_dump(exclude_defaults=True, mode="json")})
        found = open_study(tiny.study, 1)
        found.record()
        CALIBRATION.put(found.store, found.setup, Calibration(0.01, 0.7, {1: 0.01}, 1, "cpu"))
        for proposal in Paper("probe").propose(found):
            queue.submit(found, proposal, Scheduler(found, 1e6, Slots(), new_events()).accounts)
            queue.ensure_trials(found, proposal)
        with found.store.transaction():
            found.store.execute("UPDATE trials SET state = 'WAITING'")
        return found

    return made


def all_done_once(opened: OpenStudy, log: Path) -> None:
    """Every trial has one result and was trained from its beginning to its end, without a step done twice."""
    trials = opened.store.query("SELECT id, state, seconds, attempts FROM trials")
    assert len(trials) >= 20 and {t["state"] for t in trials} == {"COMPLETE"}
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    for trial in trials:
        own = [n for n in notes if n["trial"] == trial["id"]]
        assert sum(n["end"] == own[-1]["end"] for n in own) == 1  # nothing finished is run again
        charged = opened.store.query("SELECT seconds FROM costs WHERE id = ?", (f"{trial['id']}:{trial['attempts']}",))
        assert [c["seconds"] for c in charged] == [trial["seconds"]]


def spent(opened: OpenStudy) -> float:
    return sum(row["seconds"] for row in opened.store.query("SELECT seconds FROM costs"))


def proposals(opened: OpenStudy) -> list[str]:
    return [row["id"] for row in opened.store.query("SELECT id FROM proposals")]


def test_a_study_is_run_while_jobs_come_and_go(
    many: Callable[..., OpenStudy], local: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A job is left at the end of its time, in the middle of its trials; all is charged that jobs took."""
    stand_in(monkeypatch, tmp_path, 10, 0.005)
    monkeypatch.setattr(slurm_cluster, "SlurmQueue", lambda: local)
    left: list[str] = []

    def watch(at_work: Scheduler) -> None:
        if at_work.finished >= 5 and not left and any(s.trials for s in at_work.slots):
            left.append(local.ids[0])
            local.signal(left[0], signal.SIGUSR2)

    with (opened := many(executor(jobs=2))).store:
        with scheduler(opened, 1e6, None) as at_work:
            at_work.watch = watch
            assert at_work.run("probe", proposals(opened), 1e6) == "done"
            began = dict(local.began)
        all_done_once(opened, tmp_path / "trainings.log")
        assert left and len(local.ids) == 3
        assert not any(seen.is_there for seen in local.jobs().values())
        bills = opened.store.query("SELECT id, seconds FROM costs WHERE kind = 'allocation'")
        assert {b["id"] for b in bills} == {f"slurm:{job}:0" for job in began}
        own = sum(run.final[0] for run in at_work.slots._runs)  # type: ignore[attr-defined]
        assert spent(opened) == pytest.approx(own, abs=0.01)
        told = [e["text"] for e in opened.store.query("SELECT text FROM events WHERE kind = 'slurm'")]
        assert sum("is submitted" in t for t in told) == 3 and sum("of it was work" in t for t in told) == 3


def test_what_jobs_took_after_their_engine_was_killed_is_charged(many: Callable[..., OpenStudy]) -> None:
    with (opened := many(executor())).store:
        at_work = Scheduler(opened, 1e6, Slots(), new_events())
        taken = Allocated("slurm:7:0", "7", 0, 2, 30.0)
        at_work.accounts.charge_bills([Bill(taken, "slurm0", 10.0, False)])
        assert spent(opened) == 20.0
        at_work.slots.accounted = {taken: 36.0}.get  # type: ignore[method-assign]
        at_work.settle()
        at_work.settle()  # once
        assert spent(opened) == 26.0


# -- a real Slurm ---------------------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[Path]:
    """A cluster of one node."""
    with tempfile.TemporaryDirectory(prefix="djsb-slurm") as folder, running(Path(folder)) as found:
        yield found


@needs_slurm
@pytest.mark.long
def test_a_cluster_preempts_and_requeues_a_study_and_nothing_is_lost(
    real: Path, many: Callable[..., OpenStudy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Jobs of two cores each. One is preempted, and left in time; later one that is killed before, and comes back."""
    stand_in(monkeypatch, tmp_path, 40, 0.1)
    monkeypatch.setattr(slurm_cluster, "POLL", 0.5)
    stubborn = tmp_path / "stubborn"
    disturbed: list[int] = []

    def watch(at_work: Scheduler) -> None:
        if any(bill.taken.run for bill in at_work.slots.bills()):
            stubborn.unlink(missing_ok=True)
        for after in (3, 8):
            if at_work.finished >= after and after not in disturbed and all(s.trials for s in at_work.slots):
                disturbed.append(after)
                if after == 8:
                    stubborn.touch()
                slurm("sbatch", "--partition=high", "--ntasks=5", "--output=/dev/null", "--wrap=sleep 2")

    with (opened := many(executor(jobs=2, cpus=2, partition="low"))).store:
        with scheduler(opened, 1e6, None) as at_work:
            at_work.watch = watch
            assert at_work.run("probe", proposals(opened), 1e6) == "done"
        all_done_once(opened, tmp_path / "trainings.log")
        assert disturbed == [3, 8]
        told = opened.store.query("SELECT kind, text FROM events WHERE kind IN ('taken', 'parked', 'crash')")
        assert {e["kind"] for e in told} == {"taken", "parked"}
        assert any("was preempted, and waits in Slurm's queue again" in e["text"] for e in told)
        runs = at_work.slots._runs  # type: ignore[attr-defined]
        assert any(run.run > 0 for run in runs)  # one was queued again
        assert slurm("squeue", "--noheader") == ""
        # what Slurm itself has counted of the last runs, and what was charged
        told = slurm("squeue", "--noheader", "--states=all", "--Format=JobID:20,RestartCnt:10,TimeUsed:20,Name:60")
        rows = [line.split() for line in told.splitlines() if "djsb-" in line]
        assert len(rows) >= 3
        for job, restarts, used, _ in rows:
            if used == "0:00":  # cancelled while it waited
                continue
            (run,) = [r for r in runs if (r.job, str(r.run)) == (job, restarts)]
            assert run.final == (seconds_of(used), "squeue")
            others = opened.store.query("SELECT seconds FROM costs WHERE id = ?", (run.taken.key,))
            assert others[0]["seconds"] == pytest.approx(max(0.0, run.devices * run.final[0] - run.used), abs=0.01)
        whole = sum(run.taken.seconds for run in runs)
        assert spent(opened) == pytest.approx(whole, rel=0.05, abs=2.0)  # Slurm counts whole seconds


@needs_slurm
@pytest.mark.long
def test_a_job_is_left_before_its_time_ends_and_jobs_end_with_a_killed_engine(
    real: Path, local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    stand_in(monkeypatch, tmp_path, 10, 0.2)
    monkeypatch.setattr(slurm_cluster, "POLL", 0.5)
    asked = executor(time="1min", notice=30, partition="high")
    slots = SlurmSlots(asked, None, tmp_path / "state" / "logs", new_events(), 1, False, SlurmQueue())
    try:
        slots[0].start()
        assert answer(slots[0]) == Ready()
        until(lambda: slots[0].leaving)
        assert slots[0].leaving == "its job's time ends"
        slots.tend(True)
        until(lambda: slots.jobs[0].id is None)
        slots[0].start()
        assert answer(slots[0]) == Ready()
        assert slots._guard is not None and slots._guard.stdin is not None
        slots._guard.stdin.close()  # as when the engine is killed
        until(lambda: "djsb-" not in slurm("squeue", "--noheader", "--states=R,PD,CG", "--format=%j"))
    finally:
        slots.close()


@needs_slurm
def test_slots_of_a_job_share_the_gpus_that_slurm_grants(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, 1, 0.0)
    asked = executor(gpus=4, partition="high")
    slots = SlurmSlots(asked, None, tmp_path / "state" / "logs", new_events(), 2, False, SlurmQueue())
    try:
        assert [slot.device for slot in slots] == ["slurm0/gpu0-1", "slurm0/gpu2-3"]
        for slot, granted in zip(slots, ("0,1", "2,3"), strict=True):
            assert isinstance(slot, SlurmSlot)
            slot.start()
            assert answer(slot) == Ready()
            slot.send({"do": "environment", "names": ["CUDA_VISIBLE_DEVICES"]})
            assert answer(slot) == Note(text=granted) and answer(slot) == Done()
        assert [bill.taken.devices for bill in slots.bills()] == [4]
    finally:
        slots.close()


@needs_slurm
def test_a_refusal_of_slurm_is_told_in_its_own_words(real: Path, tmp_path: Path) -> None:
    slots = SlurmSlots(executor(partition="none"), None, tmp_path / "logs", new_events(), 1, False, SlurmQueue())
    try:
        with pytest.raises(StudyError, match=r"^executor: Slurm refuses the job: .*[Ii]nvalid partition.*; change"):
            slots[0].start()
    finally:
        slots.close()
