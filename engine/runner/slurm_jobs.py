"""Jobs of Slurm as the engine asks for them, by submitit, and what they take, as Slurm accounts it."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine.base.environment import passed
from engine.base.errors import StudyError
from engine.base.program_guard import MARK
from engine.journal.results import Allocated
from engine.runner import slurm_relay
from engine.runner.slurm_queue import Seen
from engine.runner.slurm_relay import Relay
from engine.settings.running import SlurmSection

SETUP = "DJSB_SLURM_SETUP"  # of the environment: file of shell lines that a job begins with
PROGRAMS = ("sbatch", "squeue", "scancel", "srun")
CLUSTER = "slurm"  # of submitit; `local` is for tests


@dataclass
class Run:
    """A job's run on a node; one that is queued again has another.

    devices: that are charged. began, lost: when its first slot came and its last one went, by `time.monotonic`.
    polled: seconds that Slurm counted, and when. used: device-seconds that are charged to trials and the like.
    final: seconds as they are accounted once it has ended, and by whom.
    """

    job: str
    run: int
    device: str
    devices: int
    began: float
    lost: float | None = None
    polled: tuple[float, float] | None = None
    used: float = 0.0
    final: tuple[float, str] | None = None

    @property
    def taken(self) -> Allocated:
        """What it has taken so far."""
        key = f"slurm:{self.job}:{self.run}"
        return Allocated(key, self.job, self.run, self.devices, self.devices * self.seconds)

    def see(self, seen: Seen, on_gpus: bool) -> None:
        """Take in what Slurm says of the run."""
        self.devices = (seen.gpus if on_gpus else seen.cpus) or self.devices
        if seen.state in ("RUNNING", "COMPLETING") or self.polled is None:
            self.polled = seen.seconds, time.monotonic()
        if not seen.is_there:
            self.final = self.final or (seen.seconds, "squeue")

    @property
    def seconds(self) -> float:
        """Of wall time so far: as Slurm counts, between two looks by the engine's clock."""
        if self.final:
            return self.final[0]
        end = self.lost or time.monotonic()
        counted, at = self.polled or (0.0, end)
        return max(end - self.began, counted + max(0.0, end - at))


def submitted(relay: Relay, settings: SlurmSection, folder: Path, name: str, cluster: str | None = None) -> str:
    """Hand a job to Slurm; its id. Raises: StudyError in Slurm's own words."""
    cluster = cluster or CLUSTER
    if cluster == "slurm" and (missing := lacking()):
        raise StudyError(missing)
    import cloudpickle  # start-up time, and no need of other executors
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    cloudpickle.register_pickle_by_value(sys.modules[slurm_relay.__name__])
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # the run's key lies there
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**parameters(settings, name))
    try:
        return str(executor.submit(relay).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        said = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines()[-1:]
        raise StudyError(
            f"executor: Slurm refuses the job: {said[0].removeprefix('sbatch: ').strip()[:300]}; "
            "change executor.slurm in study.yaml (djsb check tells what is asked)"
        ) from error


def parameters(settings: SlurmSection, name: str) -> dict[str, object]:
    """What submitit is given."""
    given = {"partition": settings.partition, "account": settings.account, "qos": settings.qos, "mem": settings.memory}
    names = ",".join(sorted(n for n in passed() if n != MARK and not n.startswith(("SLURM_", "SBATCH_"))))
    options: dict[str, object] = {**dict(settings.sbatch.items()), "requeue": True, "export": names}
    asked: dict[str, object] = {
        "name": name, "timeout_min": math.ceil(settings.seconds / 60), "nodes": 1, "tasks_per_node": 1,
        "cpus_per_task": settings.cpus * max(1, settings.gpus), "slurm_signal_delay_s": round(settings.notice),
        "slurm_stderr_to_stdout": True, "slurm_setup": ["export SLURM_EXPORT_ENV=ALL", *setup_lines()],
        "slurm_additional_parameters": options,
        **{f"slurm_{key}": value for key, value in given.items() if value is not None},
    }  # fmt: skip
    return asked | ({"gpus_per_node": settings.gpus} if settings.gpus else {})


def setup_lines() -> list[str]:
    """Shell lines of the user's own that a job begins with; a study has none. Raises: StudyError."""
    if not (file := os.environ.get(SETUP)):
        return []
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise StudyError(f"{SETUP}: {file} cannot be read ({error})") from error


def lacking() -> str | None:
    """What this machine lacks to submit jobs, in one line, or None."""
    if find_spec("submitit") is None:
        return "executor: slurm needs submitit: pip install 'djsb[slurm]'"
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"executor: slurm needs {', '.join(missing)}; run djsb on a machine that submits to the cluster"
    return None


def jobs_at_once(settings: SlurmSection, workers: int | None) -> int:
    """How many jobs are there at most. workers: devices to use at most."""
    return settings.jobs if workers is None else max(1, min(settings.jobs, workers // settings.devices))


def asked_for(settings: SlurmSection, workers: int | None, each: int) -> Sequence[str]:
    """What Slurm would be asked for, a line each, for `djsb check`. each: devices of a trial.

    Raises: StudyError where a job has too few devices for a trial.
    """
    if settings.devices < each:
        field = "gpus" if settings.gpus else "cpus"
        raise StudyError(
            f"devices_per_trial is {each}, and a job has {settings.devices}; raise executor.slurm.{field}, or lower it"
        )
    devices = f"{settings.gpus} GPU(s) and {settings.cpus * settings.gpus}" if settings.gpus else f"{settings.cpus}"
    where = ", ".join(f"{name} {getattr(settings, name)}" for name in ("partition", "account", "qos", "memory")
                      if getattr(settings, name))  # fmt: skip
    options = ", ".join(f"--{name}={value}" for name, value in settings.sbatch.items())
    told = f"{devices} CPU core(s) of one node for {settings.time}"
    lines = [
        f"slurm: up to {jobs_at_once(settings, workers)} job(s) at once, each of {told}"
        + "".join(f"; {part}" for part in (where, options) if part),
        f"slurm: {settings.devices // each} trial(s) at once in a job; charged is what a job takes, its idle time too",
    ]
    setup = setup_lines()
    return [*lines, f"slurm: jobs begin with {len(setup)} line(s) of {os.environ[SETUP]}"] if setup else lines
