"""Stops, locks, full and read-only disks, damaged files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from benchmarks.chaos.kills import below
from benchmarks.chaos.patient import Patient
from benchmarks.chaos.worlds import WORLDS

SILENCE = 8.0  # in place of five minutes, after which a silent worker counts as lost
QUICK = f"import engine.runner.hearing, engine.runner.watch as s; s.SILENCE = {SILENCE}"
NO_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")
DAMAGE = ("truncated", "flipped", "emptied")
Undisturbed = tuple[str, set[str]]


def _end(patient: Patient, process: subprocess.Popen[str], at: int, undisturbed: Undisturbed) -> None:
    """Let a run come to its end, and compare."""
    code = process.wait(300)
    patient.look_for_errors(patient.said(at))
    if code != 0:
        patient.hurt("runs that failed", patient.said(at)[-300:])
        patient.run("auto", patient.folder)
    patient.compare(*undisturbed)


def _trial_runs(patient: Patient) -> bool:
    return bool(patient.query("SELECT 1 FROM trials WHERE state = 'RUNNING'"))


def stops(world: str, folder: Path, times: int, draw: random.Random, undisturbed: Undisturbed) -> Patient:
    """SIGSTOP for longer than a worker may be silent: of the engine, of a worker, of all as when a laptop sleeps."""
    patient = Patient(WORLDS[world](folder), prelude=QUICK)
    at, process = patient.place(), None
    for number in range(times):
        if process is None:
            process = patient.start("auto", folder)
        who = ("the engine", "a worker", "all")[number % 3]
        if not patient.wait_until(process, lambda: _trial_runs(patient)):
            _end(patient, process, at, undisturbed)
            shutil.rmtree(folder / ".djsb")
            at, process = patient.place(), patient.start("auto", folder)
            patient.wait_until(process, lambda: _trial_runs(patient))
        time.sleep(draw.uniform(0, 0.5))
        workers = [p for p in below(process.pid) if p.cmdline()[-1:] == ["worker"]]
        trainers = [q for p in workers for q in below(p.pid)]
        one = workers[:1] + [q for p in workers[:1] for q in below(p.pid)]
        stopped = {"the engine": [], "a worker": one, "all": [*workers, *trainers]}[who]
        pids = [p.pid for p in stopped] + ([process.pid] if who != "a worker" else [])
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        time.sleep(2 * SILENCE)
        for pid in reversed(pids):
            _signal(pid, signal.SIGCONT)
        patient.attacks[f"SIGSTOP: {who}"] += 1
    assert process is not None
    _end(patient, process, at, undisturbed)
    again = patient.query("SELECT id, attempts FROM trials WHERE attempts > 1")
    if again:
        patient.hurt("healthy trials that were run again", str(again[:4]), len(again))
    return patient


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def locks(world: str, folder: Path, holds: list[float], undisturbed: Undisturbed) -> Patient:
    """Another program, such as a backup, holds the database."""
    patient = Patient(WORLDS[world](folder))
    at, process = patient.place(), patient.start("auto", folder)
    for seconds in holds:
        if not patient.wait_until(process, lambda: _trial_runs(patient)):
            _end(patient, process, at, undisturbed)
            shutil.rmtree(folder / ".djsb")
            at, process = patient.place(), patient.start("auto", folder)
            patient.wait_until(process, lambda: _trial_runs(patient))
        with closing(sqlite3.connect(patient.database, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            other.execute("ROLLBACK")
        patient.attacks[f"locked for {'a minute' if seconds > 30 else 'seconds'}"] += 1
        if process.poll() is not None:
            patient.hurt("runs ended by a lock", patient.said(at)[-300:])
            process = patient.start("auto", folder)
        time.sleep(1)
    _end(patient, process, at, undisturbed)
    return patient


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 64 kB, in memory."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(world: str, disk: Path, kilobytes: list[int], undisturbed: Undisturbed) -> Patient:
    """The study lies on a disk that ends, first at one size, then at the next; at last there is space."""
    with small_disk(disk):
        made = WORLDS[world](disk.with_name(disk.name + "-data"))
        folder = disk / world
        _grow(disk, 4_000)
        shutil.copytree(made, folder)
        used = sum(f.stat().st_blocks for f in folder.rglob("*")) // 2 + 200
        patient = Patient(folder, elsewhere=disk.parent)
        for extra in kilobytes:
            _grow(disk, used + extra)
            ended = patient.run("auto", folder)
            if ended.code == 0:
                patient.notes.append(f"{world}: {extra} kB more were enough")
                continue
            patient.attacks["disk full"] += 1
            last = (ended.text.strip().splitlines() or [""])[-1]
            if ended.code != 1 or "free some space" not in last:
                patient.hurt("unclear errors", f"{ended.code}: {last[-300:]}")
        _grow(disk, 200_000)
        ended = patient.run("auto", folder)
        if ended.code != 0:
            patient.hurt("runs that failed", ended.text[-300:])
        patient.compare(*undisturbed)
    return patient


def _grow(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


def read_only(folder: Path, finished: Path) -> Patient:
    """A study that may only be read: it can be looked at, and `auto` says in one line that it can't go on."""
    patient = Patient(shutil.copytree(finished, folder))
    ranking, trials = patient.rank(), {t[0] for t in patient.finished()}
    for mode in ("study", "database", "state"):
        files = {"study": [folder, *folder.rglob("*")], "database": [patient.database], "state": [folder / ".djsb"]}[
            mode
        ]
        for file in files:
            file.chmod(file.stat().st_mode & ~0o222)
        patient.attacks["read-only"] += 1
        for command in ("status", "rank", "log"):
            ended = patient.run(command, folder, before=NO_RIGHTS)
            if ended.code != 0:
                patient.hurt("runs that failed", f"{command}: {ended.text[-200:]}")
        ended = patient.run("auto", folder, before=NO_RIGHTS)
        if ended.code not in (0, 1):
            patient.hurt("unclear errors", f"{ended.code}: {ended.text[-200:]}")
        for file in files:
            file.chmod(file.stat().st_mode | 0o200)
    patient.compare(ranking, trials)
    return patient


# -- damaged files -----------------------------------------------------------------------------


def damage(file: Path, how: str, draw: random.Random) -> None:
    """Half of a file is gone, a bit of its middle half is another, or all of it is gone."""
    content, times = bytearray(file.read_bytes()), file.stat()
    if how == "flipped":
        content[draw.randrange(len(content) // 4, max(len(content) // 4 + 1, 3 * len(content) // 4))] ^= (
            1 << draw.randrange(8)
        )
    else:
        del content[len(content) // 2 if how == "truncated" else 0 :]
    with file.open("r+b") as out:
        out.write(content)
        out.truncate(len(content))
    if how == "flipped":  # by the disk: nobody has written it
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def targets(folder: Path) -> list[Path]:
    """One file of each kind below `.djsb` that the engine reads again."""
    kinds: dict[str, Path] = {}
    for file in sorted((folder / ".djsb").rglob("*")):
        part = file.relative_to(folder / ".djsb").parts
        if file.is_file() and file.stat().st_size and part[0] in ("cache", "paused", "checkpoints", "study.db"):
            names = [p.split("-")[0] for p in part[:-1]] if part[0] == "cache" else [part[0]]
            begin = file.name.split("-")[0] if file.suffix != ".npy" or "-" in file.name else ""
            kinds.setdefault(
                "/".join([*names, begin, file.suffix]) if part[0] == "cache" else names[0] + file.suffix, file
            )
    return list(kinds.values())


def half_run(world: str, folder: Path, trials: int) -> Patient:
    """A study whose engine was killed once so many trials had finished."""
    patient = Patient(WORLDS[world](folder))
    process = patient.start("auto", folder)
    patient.wait_until(process, lambda: len(patient.finished()) >= trials)
    patient.kill(process)
    return patient


def corruptions(
    world: str, folder: Path, most: int, draw: random.Random, undisturbed: Undisturbed, finished: Path
) -> Patient:
    """Damage each kind of file of a study that was killed near its end, and of one at its end; go on, compare."""
    total = Patient(folder)
    template = half_run(world, folder.with_name(folder.name + "-half"), trials=20)
    jobs = [(source, file, how) for source in (template.folder, finished) for file in targets(source) for how in DAMAGE]
    for source, file, how in draw.sample(jobs, min(most, len(jobs))):
        shutil.copytree(source, folder)
        patient = Patient(folder)
        hurt = folder / file.relative_to(source)
        damage(hurt, how, draw)
        if source == finished and how == "flipped":
            patient.run("check", folder, "--deep")
        ended = patient.run("auto", folder)
        when = "at its end" if source == finished else "on its way"
        name = f"{world} {hurt.relative_to(folder / '.djsb')} {how}, {when}"
        if ended.code != 0:
            patient.hurt("runs that failed", f"{name}: {ended.text[-300:]}")
        patient.compare(*undisturbed)
        total.attacks[f"{how}: {'the database' if hurt.name == 'study.db' else 'a cache'}"] += 1
        total.harm += patient.harm
        total.notes += [f"{name}: {note}" for note in patient.notes]
        shutil.rmtree(folder)
        shutil.rmtree(patient.temp)
    return total
