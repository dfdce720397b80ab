"""A Slurm cluster of one node on this machine: its daemons run from a folder, as root, without systemd.

Three partitions of the same node: `low` is preempted at once, `grace` with notice, and `high` preempts both. What
processors and GPUs the node has is only said.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
PATHS = ("/usr/sbin", "/usr/bin")
MISSING = [name for name in DAEMONS if not shutil.which(name, path=":".join(PATHS))]
PATIENCE = 60.0
needs_slurm = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason=f"needs root and Slurm (apt-get install slurmd slurmctld slurm-client munge): {', '.join(MISSING)}",
)
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
CompleteWait=0
MinJobAge=300
JobRequeue=1
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4000 Gres=gpu:4 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 MaxTime=60 State=UP
PartitionName=grace Nodes={host} PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 MaxTime=60 State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP
"""


def slurm(*command: str) -> str:
    """What a command of Slurm writes."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """A cluster whose files are in this folder, whose path must be short; SLURM_CONF names it within the block."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    gpus = [folder / f"gpu{number}" for number in range(4)]
    for gpu in gpus:
        gpu.touch()
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-3]\n")
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, ports=_free_ports(2)))
    env = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:{':'.join(PATHS)}"}
    daemons = [
        ["munged", "-F", f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid",
         f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed", "--force"],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
    ]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ.update({name: env[name] for name in before})
    try:
        for command in daemons:
            with (folder / f"{command[0]}.out").open("wb") as out:
                started.append(subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True))
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.socket").exists())
        _wait(lambda: "idle" in slurm("sinfo", "-h", "-o", "%T"))
        yield folder
    finally:
        with suppress(subprocess.SubprocessError):
            slurm("scancel", f"--user={os.getuid()}")
            _wait(lambda: not slurm("squeue", "-h").strip(), 20.0)
        for daemon in reversed(started):
            daemon.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _wait(is_so: object, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(subprocess.SubprocessError):
            if is_so():  # type: ignore[operator]
                return
        time.sleep(0.1)
    raise TimeoutError("Slurm does not come up")
