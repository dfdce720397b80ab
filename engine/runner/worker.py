"""A worker process: trains and evaluates one trial after another on one device.

It is started as `python djsb.py worker`, reads jobs as JSON lines from standard input and writes
events as JSON lines to standard output. It ends when standard input closes, so it never outlives
the engine.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import numpy as np

from engine.base.arrays import save_array
from engine.base.errors import DjsbError, MachineError
from engine.base.lifetime import end_with_owner
from engine.base.machine import lacks_memory
from engine.runner.preflight import check_device
from engine.runner.ranks import Ranks, one_line, split
from engine.tasks.contract import ScoresRows
from engine.tasks.shared import sharded

if TYPE_CHECKING:
    from engine.settings.study import Study
    from engine.tasks.contract import Task

T = TypeVar("T")
BEAT = 1.0  # seconds between two heartbeats
SAMPLE = 2.0  # seconds between two readings of what a trial takes of the machine


class _Notes(logging.Handler):
    """Sends warnings of djsb's own code to the engine's log, each once."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel, self._said = channel, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        text = record.getMessage()[:2000]
        if text not in self._said:
            self._said.add(text)
            self._channel.send("note", text=text)


class _Channel:
    """Writes events; safe from several threads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, event: str, **content: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps({"event": event, **content}) + "\n")
            self._stream.flush()


def main() -> None:
    """Serve jobs until standard input closes."""
    end_with_owner()
    gpus = tuple(name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name)  # of all ranks
    ranks = split(settle_threads, _work, _is_memory)  # before there are threads
    channel = _Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    logging.getLogger("djsb").addHandler(_Notes(channel))
    os.dup2(2, 1)  # prints of libraries go to the log
    jobs: list[dict[str, Any]] = []
    dropped: set[str] = set()
    leaving = threading.Event()
    arrived = threading.Condition()

    def listen() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message["do"] == "drop":
                dropped.update(message["trials"])
                continue
            if message["do"] == "leave":
                leaving.set()
                continue
            with arrived:
                jobs.append(message)
                arrived.notify()
        os._exit(0)  # the engine is gone: nobody will read a result

    threading.Thread(target=listen, daemon=True).start()
    try:
        settle_threads()
    except MachineError as error:
        channel.send("unfit", why=str(error)[:2000])
        return
    if ranks:
        ranks.wait_until("ready")
    channel.send("ready")
    while True:
        with arrived:
            arrived.wait_for(lambda: bool(jobs))
            job = jobs.pop(0)
        _serve(job, channel, dropped, leaving, ranks, gpus)
        dropped.clear()


def settle_threads() -> None:
    """As many threads as the engine grants; deterministic kernels. Raises: MachineError where the GPU cannot train."""
    from engine.data.datajuicer import OFFLINE

    os.environ.update(OFFLINE)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # less is lost between blocks
    if "DJSB_BARE" in os.environ:  # another program trains
        return
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(int(os.environ.get("DJSB_THREADS", "1")))
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports the compiler for it: 2 s
    # it would fill every new tensor, twenty times as many kernels a step, for nothing
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    check_device()


def _serve(
    job: dict[str, Any], channel: _Channel, dropped: set[str], leaving: threading.Event, ranks: Ranks | None,
    gpus: Sequence[str] = (),
) -> None:  # fmt: skip
    """Run one job; its end is `done` or `failed`, once, never silence. gpus: of all ranks."""
    stop, ending = threading.Event(), threading.Lock()

    def end(event: str, **content: Any) -> None:
        with ending:
            if not stop.is_set():
                stop.set()
                channel.send(event, **content)

    def failed(error: str, memory: bool) -> None:
        end("failed", error=error, memory=memory)

    def beat() -> None:
        while not stop.wait(BEAT):
            channel.send("beat")

    threading.Thread(target=beat, daemon=True).start()
    try:
        kinds = {"calibrate": _calibrate, "ask": _ask, "score": _score}
        shared = ranks and (job["do"] == "trials" or (job["do"] == "calibrate" and job.get("timed", True)))
        measured = _usage_told(channel, gpus) if job["do"] == "trials" else nullcontext()
        with measured, ranks.on_one_job(job, failed) if ranks and shared else nullcontext():
            result = kinds[job["do"]](job) if job["do"] in kinds else _trials(job, channel, dropped, leaving)
        end("done", **result)
    except Exception as error:  # the process border: the engine records it
        traceback.print_exc()
        if ranks:
            ranks.await_cause()
        failed(one_line(error), _is_memory(error))


@contextmanager
def _usage_told(channel: _Channel, gpus: Sequence[str]) -> Iterator[None]:
    """Within the block the engine is told what this worker takes of the machine, at its end once more.

    A thread of its own reads it: a driver that hangs holds neither heartbeats nor results.
    """
    from engine.base.usage import Sampler

    ended, left = threading.Event(), threading.Event()

    def sample() -> None:
        sampler = Sampler(gpus)
        while not left.is_set():
            ended.wait(SAMPLE)
            last = ended.is_set()
            seconds, values = sampler.read()
            if not left.is_set():
                channel.send("usage", seconds=seconds, values=values)
            if last:
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)
        left.set()


def _work(job: dict[str, Any]) -> None:
    """What a rank other than the first does of a job: it trains with it."""
    from engine.settings.study import Study
    from engine.tasks.contract import SILENT, Job
    from engine.tasks.registry import get_task

    study, prepared = Study.model_validate(job["study"]), Path(job["prepared"])
    if job["do"] == "trials":
        get_task(study).run(study, prepared, Job(**job["jobs"][0]), SILENT)
    else:
        get_task(study).calibrate(study, prepared)


def _is_memory(error: BaseException) -> bool:
    """True for out-of-memory on a GPU or in the CPU allocator, when a smaller batch may help."""
    return not isinstance(error, DjsbError) and lacks_memory(error)


def _trials(job: dict[str, Any], channel: _Channel, dropped: set[str], leaving: threading.Event) -> dict[str, Any]:
    """Train one trial, or several as a pack; metrics by trial, without those that were dropped or broken off."""
    from engine.settings.study import Study
    from engine.tasks.contract import Job, Report, packing
    from engine.tasks.registry import get_task
    from engine.tasks.shared.procedure import begin

    study, prepared = Study.model_validate(job["study"]), Path(job["prepared"])
    report = Report(
        lambda kind, content: channel.send(kind, **content), lambda: dropped,
        describe=lambda trial, facts: channel.send("procedure", trial=trial, facts=facts), leaving=leaving.is_set,
    )  # fmt: skip
    jobs = [Job(**j) for j in job["jobs"]]
    task = get_task(study)
    # one trial alone is a pack too, so that no result hangs on which trials happened to run together
    packs = packing(study, task) if all(j.micro_batch is None for j in jobs) else None
    if packs:
        begin(study)

    def train() -> dict[str, dict[str, float]]:
        return packs.pack(study, prepared, jobs, report) if packs else task.run(study, prepared, jobs[0], report)

    try:
        found = _with_room(train)
    finally:
        report.end()
    results = {t: {name: float(value) for name, value in m.items()} for t, m in found.items()}
    return {"results": results, **({"parked": report.parked} if report.parked else {})}


def _with_room(train: Callable[[], T]) -> T:
    """What it gives; once more where memory runs out and data that lie on the device can leave it."""
    from engine.tasks.shared.batches import evict

    try:
        return train()
    except Exception as error:
        if not _is_memory(error) or sharded.ranks() > 1:  # the other ranks do not wait
            raise
        failed: Exception | None = error.with_traceback(None)  # it would hold the model
    if not evict():
        assert failed is not None
        raise failed
    failed = None
    return train()


def _ask(job: dict[str, Any]) -> dict[str, Any]:
    """Ask a checkpoint with a prompt."""
    from engine.settings.study import Study
    from engine.tasks.contract import Asking
    from engine.tasks.registry import get_task
    from engine.tasks.shared.items import judged_on
    from engine.tasks.shared.procedure import begin

    study = Study.model_validate(job["study"])
    begin(study)
    task = get_task(study)
    assert isinstance(task, Asking)
    with judged_on(study, job.get("part", "all"), job.get("items")):
        found = task.ask(study, Path(job["prepared"]), Path(job["checkpoint"]), job["prompt"])
    return {"scores": {name: float(value) for name, value in found.items()}}


def _score(job: dict[str, Any]) -> dict[str, Any]:
    """Score all rows by a checkpoint, into a file."""

    score(job)
    return {}


def _calibrate(job: dict[str, Any]) -> dict[str, Any]:
    """Time a few steps (`timed`), alone and in packs (`packs`), and count FLOPs (`flops`), as the job says."""
    from engine.settings.study import Study
    from engine.tasks.contract import best_pack, packing
    from engine.tasks.registry import get_task
    from engine.tasks.shared.procedure import begin

    study, prepared = Study.model_validate(job["study"]), Path(job["prepared"])
    task = get_task(study)
    found: dict[str, Any] = {}
    begin(study)
    if job.get("timed", True):
        own = study.train
        study, (per_sample, fixed) = _timed(task, task.fitted(study, prepared), prepared)
        micro = study.train.micro_batch or own.batch_size
        if micro < min(own.batch_size, own.micro_batch or own.batch_size):
            found["micro"] = micro
        found["checkpointing"] = study.train.activation_checkpointing == "on"
        packable = packing(study, task) if job.get("packs", True) else None
        if packable is None and (samples := job.get("samples")):
            study = task.quicker(study, prepared, per_sample, samples)
            if study.train.compile == "on" and own.compile != "on":
                found["compiled"] = True
                per_sample, fixed = task.calibrate(study, prepared)
        packs = packable.calibrate_pack(study, prepared) if packable else {1: per_sample}
        fastest = best_pack(packs)
        found |= {"per_sample": packs[fastest], "fixed": fixed, "packs": packs, "fastest_pack": fastest}
        if (memory := task.memory(study, prepared)) is not None:
            found["memory"] = memory
        found["alone"] = not job.get("packs", True)
    if job.get("flops"):
        from engine.tasks.flops import count_flops

        with sharded.together(0, 1):  # on one device
            found["flops"] = count_flops(task, study, prepared)
    return {"calibration": found}


def _timed(task: Task, study: Study, prepared: Path) -> tuple[Study, tuple[float, float]]:
    """(the study as it fits, what its calibration came to): with fewer rows at once where memory runs out.

    What was fitted is the training; an evaluation may take more. Raises: MachineError where one row is too much.
    """
    from engine.tasks.shared.batches import evict
    from engine.tasks.shared.fitting import changed, misfit

    while True:
        try:
            return study, task.calibrate(study, prepared)
        except Exception as error:
            if not _is_memory(error) or sharded.ranks() > 1:  # the other ranks do not wait
                raise
        rows = study.train.micro_batch or study.train.batch_size
        if not evict():
            if rows < 2:
                raise MachineError(misfit("free memory on the device, or take a smaller model"))
            study = changed(study, micro_batch=rows // 2)


def score(message: dict[str, Any]) -> None:
    """What a worker does: score all rows by a checkpoint, and write (rows,) float64."""
    from engine.settings.study import Study
    from engine.tasks.registry import get_task
    from engine.tasks.shared.procedure import begin

    study = Study.model_validate(message["study"])
    begin(study)
    task = get_task(study)
    assert isinstance(task, ScoresRows)
    values = task.score(study, Path(message["prepared"]), message["checkpoint"])
    save_array(Path(message["file"]), values.astype(np.float64))
