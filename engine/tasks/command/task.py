"""Task `command`: the user's own trainer, in any language, started without a shell.

`command.run` is the program and its arguments; {pool}, {init}, {seed}, {out} and others are filled in. It runs in the
study's folder, tells its numbers as JSON lines (in {out}/metrics.jsonl or on standard output), and leaves its
checkpoint in {out}. A guard process (`program_guard.py`) ends all that it started when it ends, is cancelled, takes too
long, or the engine is gone.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.base import program_guard as guard
from engine.base.amounts import format_seconds, parse_budget
from engine.base.confine import inside
from engine.base.durable import move_whole, write_text
from engine.base.environment import passed
from engine.base.errors import StudyError, TrialError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.base.secrets import redact, secret_values
from engine.data.datajuicer import OFFLINE
from engine.data.dataset import Dataset
from engine.records.metric import Metric, direction
from engine.settings.study import Study
from engine.tasks.command.numbers import Numbers
from engine.tasks.command.pool_file import write_pool
from engine.tasks.contract import BARE, Job, Progress, Report, Rows, Task, Traits

POLL = 0.1  # seconds between two looks at a running command
TAIL = 4000  # bytes of its standard error that are kept for an error message
LINES = 6
OURS = (*OFFLINE, "CUBLAS_WORKSPACE_CONFIG", "DJSB_THREADS", BARE)  # not for the command


class CommandTask(Task):
    """See the module."""

    traits = Traits(version=1, uses=frozenset({"command", "model.checkpoint"}), can_pause=False, spreads=True)

    def lacks(self, study: Study) -> str | None:
        """A program, what it measures, and places without which all trials would be the same."""
        command = study.command
        if not command.run:
            return "task command needs command.run: your program and its arguments"
        if not command.metrics:
            return "task command needs command.metrics: [{name: …, higher_is_better: …, low: …, high: …}]"
        for place, why in (("pool", "train on the same rows"), ("seed", "be the same at every seed")):
            if place not in command.places:
                return f"command.run has no {{{place}}}, so all trials would {why}; add it to the arguments"
        if "eval" in command.places and study.evaluation.path is None:
            return "command.run has {eval}, and evaluation.path is not set"
        return None

    def shares(self, study: Study, _folder: Path) -> list[Any]:
        """What is run and what counts; not the program's own files, which may be mended between two trials."""
        return [study.command.model_dump(mode="json", include={"run", "format", "metrics"})]

    def can_shorten(self, study: Study) -> bool:
        """True when the command takes the number of samples."""
        return study.command.can_shorten

    def expected(self, study: Study) -> float | None:
        """See Outside."""
        return None if study.command.expected is None else parse_budget(study.command.expected)

    def remarks(self, study: Study, _prepared: Path) -> list[str]:
        """Variables that it is to see and that are not there."""
        absent = [name for name in study.command.env if name not in os.environ]
        return [f"command.env: {name} is not set here, so the command will run without it" for name in absent]

    def retries(self, study: Study) -> int:
        """See Outside."""
        return study.command.retries

    def environment(self, study: Study) -> dict[str, str]:
        """The keys that the command may see."""
        return {BARE: "1"} | {name: os.environ[name] for name in study.command.env if name in os.environ}

    def metrics(self, study: Study, _prepared: Path) -> list[Metric]:
        """Those of the study file."""
        return [Metric(m.name, m.higher_is_better, m.low, m.high, m.main) for m in study.command.metrics]

    def prepare(
        self, study: Study, folder: Path, train: Rows, _held: Rows | None, _workers: int, _progress: Progress | None
    ) -> Path:
        """Check that the program is there and each metric's direction said; note where media are."""
        for metric in study.command.metrics:
            if direction(metric.name) is False and "higher_is_better" not in metric.model_fields_set:
                raise StudyError(
                    f"command.metrics: {metric.name} is better when low by its name; write higher_is_better: false "
                    "beside it, or true if it is better when high"
                )
        program = study.command.run[0]
        # a path starts from the study's folder, a name is looked for on PATH
        if "{" not in program and shutil.which(str(folder / program) if "/" in program else program) is None:
            raise StudyError(f"command.run: no program {program} that can be run; give its path, relative to {folder}")
        target = folder / ".djsb" / "cache" / f"command-{content_id([train.data.fingerprint, str(train.root)])}"
        meta = {"root": str(train.root), "data": str(train.data.path)}
        write_text(target / "meta.json", json.dumps(meta, allow_nan=False))
        return target

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Write the pool, run the command, read what it measured; its {out} becomes the checkpoint.

        Raises: TrialError when it fails, takes too long, or its metrics are missing or no numbers.
        """
        folder = prepared.parents[2]
        work = inside(folder, f".djsb/command/{job.trial}")
        with _alone(work.with_name(f"{job.trial}.lock")) as lock:
            out = work / "out"
            if not study.command.keep_out:
                shutil.rmtree(work, ignore_errors=True)
            out.mkdir(parents=True, exist_ok=True)
            told = out / "metrics.jsonl"
            told.unlink(missing_ok=True)
            logs = [inside(folder, f".djsb/logs/command-{job.trial}.{name}") for name in ("out", "err")]
            logs[0].parent.mkdir(parents=True, exist_ok=True)
            for log in logs:
                log.unlink(missing_ok=True)
            numbers = Numbers(study, job.trial, report, told, logs[0])
            try:
                argv = _arguments(study, folder, prepared, job, work)
                dropped = not _watch(argv, study, folder, job, report, numbers, logs, lock)
                found = {} if dropped else {job.trial: numbers.final()}
            except BaseException:  # a pool is as large as its media; only what the command itself left may be of use
                shutil.rmtree(work / "pool" if study.command.keep_out else work, ignore_errors=True)
                raise
            if job.output and not dropped:
                move_whole(out, Path(job.output))
            goes_on = study.command.keep_out and job.trial in report.parked
            shutil.rmtree(work / "pool" if goes_on else work, ignore_errors=True)
        return found

    def calibrate(self, _study: Study, _prepared: Path) -> tuple[float, float]:
        """Never asked for: see Outside."""
        raise TrialError("a command cannot be timed beforehand; set command.expected")


TASK = CommandTask()


@contextmanager
def _alone(file: Path) -> Iterator[int]:
    """Hold the trial's lock, which an earlier attempt's guard may still hold until all its processes have ended."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()
    file.unlink(missing_ok=True)


def _arguments(study: Study, folder: Path, prepared: Path, job: Job, work: Path) -> list[str]:
    """The command line with its places filled in; writes the pool's file.

    A command that is not told how much to train gets the rows of a repeated pool as often as they are repeated.
    """
    rows = np.load(job.rows)
    meta = json.loads((prepared / "meta.json").read_text(encoding="utf-8"))
    data, root = Dataset(Path(meta["data"]), study.dataset, prepared.parent / "rows"), Path(meta["root"])
    repeat = 1 if study.command.can_shorten else max(1, round(job.samples / (len(rows) * study.train.epochs)))
    checkpoint = study.model.checkpoint
    values = {
        "pool": write_pool(study.command.format, data, root, rows, repeat, work / "pool"),
        "init": job.init or (str(resolve(folder, checkpoint)) if checkpoint else ""),
        "seed": job.seed, "out": work / "out", "samples": job.samples, "epochs": f"{job.samples / len(rows):g}",
        "eval": resolve(folder, study.evaluation.path) if study.evaluation.path else "", "trial": job.trial,
        "devices": study.devices_per_trial,
    }  # fmt: skip
    return [part.format(**values) for part in study.command.run]


def _environment(study: Study) -> dict[str, str]:
    """Of the worker's environment (its devices among it) what is on the list, and what command.env names besides; for
    several devices, where their processes meet.
    """
    hidden = {*OURS} - set(study.command.env)
    found = {name: value for name, value in passed(more=study.command.env).items() if name not in hidden}
    return found | (_meeting(study.devices_per_trial) if study.devices_per_trial > 1 else {})


def _meeting(devices: int) -> dict[str, str]:
    """What a launcher of that many processes reads, torchrun its own PET_*; the port is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    count = str(devices)
    return {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "NPROC_PER_NODE": count,
        "PET_NPROC_PER_NODE": count, "PET_MASTER_PORT": port,
    }  # fmt: skip


def _watch(
    argv: list[str], study: Study, folder: Path, job: Job, report: Report, numbers: Numbers, logs: list[Path], lock: int
) -> bool:
    """Run the command under its guard until it ends. True, or False when the trial was dropped, or broken off.

    Raises: TrialError when it fails or takes longer than command.timeout.
    """
    limit = parse_budget(study.command.timeout) if study.command.timeout else math.inf
    began = time.monotonic()
    with logs[0].open("wb") as out, logs[1].open("wb") as err:
        process = guard.start(argv, stdout=out, stderr=err, cwd=folder, env=_environment(study), pass_fds=(lock,))
    while process.poll() is None:
        time.sleep(POLL)
        numbers.read()
        late = study.devices_per_trial * (time.monotonic() - began) > limit
        if late or report.leaving() or job.trial in report.dropped():
            guard.end(process)
            if late:
                for log in logs:
                    _without_keys(log)
                raise TrialError(
                    f"the command took longer than command.timeout ({format_seconds(limit)}) and was ended; "
                    f"{_last_words(logs[1])}"
                )
            if report.leaving():
                report.parked[job.trial] = 0  # what it has left is its own matter
            return False
    numbers.read(last=True)
    if process.returncode:
        for log in logs:
            _without_keys(log)
        raise TrialError(f"the command ended with exit code {process.returncode}; {_last_words(logs[1])}")
    for log in logs:
        log.unlink(missing_ok=True)
    return True


def _without_keys(log: Path) -> None:
    """Black out, in a log that stays, the keys that the command was given."""
    if not secret_values():
        return
    clean = log.with_name(f"{log.name}.part")
    with (
        log.open(encoding="utf-8", errors="surrogateescape", newline="") as old,
        clean.open("w", encoding="utf-8", errors="surrogateescape", newline="") as new,
    ):
        new.writelines(redact(line) for line in old)
    clean.replace(log)


def _last_words(log: Path) -> str:
    """The last lines of the command's standard error, on one line, without keys."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    told = " ⏎ ".join(lines[-LINES:])
    return redact(f"its last lines: {told[-1200:]}" if told else "it wrote nothing to standard error") + f"; see {log}"
