"""What Slurm says of jobs, and what it is asked to end: squeue, sacct, scancel. Submitting is submitit's part."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

ANSWER = 60.0  # seconds that a command of Slurm may take
FIELDS = ("JobID", "State", "RestartCnt", "StartTime", "TimeUsed", "tres-alloc", "Reason", "Name")
WAITING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "CONFIGURING", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
AT_WORK = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
ENDING = frozenset({"COMPLETING"})
_TIME = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_GPUS = re.compile(r"\bgres/gpu=(\d+)")
_CPUS = re.compile(r"\bcpu=(\d+)")


class SlurmError(Exception):
    """A command of Slurm that failed; `str` says how, in one line."""


@dataclass(frozen=True)
class Seen:
    """A job as Slurm sees it. run: how often it was queued again. seconds: that this run has taken.

    gpus, cpus: allocated, None where Slurm does not say.
    """

    job: str
    state: str
    run: int
    began: float | None
    seconds: float
    gpus: int | None
    cpus: int | None
    reason: str
    name: str

    @property
    def waits(self) -> bool:
        """In the queue, for the first time or again."""
        return self.state in WAITING

    @property
    def is_there(self) -> bool:
        """It waits, works or is just ending."""
        return self.waits or self.state in AT_WORK or self.state in ENDING


class SlurmQueue:
    """The queue of the cluster that this machine submits to."""

    def jobs(self) -> dict[str, Seen]:
        """The user's jobs by id, with those that ended in the last minutes. Raises: SlurmError."""
        form = ",".join(f"{name}:{200 if name == 'tres-alloc' else 64}|" for name in FIELDS)
        lines = ask("squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--array", f"--Format={form}")
        rows = (tuple(cell.strip() for cell in line.split("|")) for line in lines)
        seen = [_seen(row[: len(FIELDS)]) for row in rows if len(row) > len(FIELDS)]
        return {job.job: job for job in seen}

    def accounted(self, job: str) -> dict[int, Seen]:
        """The runs of a job as the accounting has them; empty where the cluster has none.

        Raises: SlurmError where it cannot be asked.
        """
        columns = "JobIDRaw,State,ElapsedRaw,AllocTRES"
        try:
            lines = ask(
                "sacct", "-X", "-D", "-n", "-P", f"--jobs={job}", f"--format={columns}", "--starttime=now-30days"
            )
        except SlurmError as error:
            if "disabled" in str(error):
                return {}
            raise
        rows = [line.split("|") for line in lines]
        runs = [row for row in rows if len(row) == 4 and row[0] == job and row[2].isdigit()]
        return {
            run: Seen(
                job, state.split()[0], run, None, float(elapsed), _count(_GPUS, tres), _count(_CPUS, tres), "", ""
            )
            for run, (_, state, elapsed, tres) in enumerate(runs)
        }

    def cancel(self, jobs: Sequence[str]) -> None:
        """End these jobs, whether they wait or run; one that has ended is none of them. Raises: SlurmError."""
        if jobs:
            ask("scancel", "--quiet", *jobs)


def ask(*command: str) -> list[str]:
    """The lines that a command of Slurm writes. Raises: SlurmError."""
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
    try:
        ran = subprocess.run(command, capture_output=True, timeout=ANSWER, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} has not answered for {ANSWER:.0f} s") from None
    except OSError as error:
        raise SlurmError(f"{command[0]} cannot be started ({error.strerror})") from error
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {ran.returncode}"]
        raise SlurmError(f"{command[0]}: {said[-1][:300]}")
    return ran.stdout.decode(errors="replace").splitlines()


def _seen(cells: Sequence[str]) -> Seen:
    job, state, run, began, used, tres, reason, name = cells
    return Seen(
        job, state, int(run) if run.isdigit() else 0, float(began) if began.isdigit() else None, seconds_of(used),
        _count(_GPUS, tres), _count(_CPUS, tres), reason, name,
    )  # fmt: skip


def seconds_of(text: str) -> float:
    """Seconds in Slurm's `1-02:03:04` or `03:04`; 0 for what is no time."""
    found = _TIME.fullmatch(text)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _count(what: re.Pattern[str], tres: str) -> int | None:
    found = what.search(tres)
    return int(found[1]) if found else None
