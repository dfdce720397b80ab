"""SIGKILL of the engine in every phase of a study, and of the commands beside it."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks.chaos.patient import GRACE, Patient, alive_after
from benchmarks.chaos.worlds import WORLDS, old

# phase → most seconds between its beginning and the kill
DELAY = {
    "scan": 0.4, "caching": 0.4, "statistics": 0.6, "calibration": 5.0, "first trial": 0.5, "trials": 1.5,
    "confirm": 1.0,
}  # fmt: skip
ROUND = {
    "command": ["scan", "statistics", "first trial", *["trials"] * 5, "confirm"],
    "lm": ["scan", "caching", "statistics", "calibration", *["trials"] * 4, "confirm"],
    "clip": ["scan", "caching", "statistics", "calibration", *["trials"] * 4, "confirm"],
}
LATE = "SIGKILLs after a trial had finished"
BESIDE = {"pools": 1.5, "export": 3.0, "apply": 12.0, "migration": 1.5}  # most seconds after the start


def _begun(patient: Patient, phase: str, pid: int, at: int, complete: int) -> bool:
    """True once the phase has begun. at: where the log began; complete: trials that had finished before."""
    if phase == "scan":
        return patient.database.exists()
    if phase == "caching":
        cache = patient.folder / ".djsb" / "cache"
        return cache.is_dir() and any(cache.glob("[cl]*-*"))  # a task's, by its name
    if phase == "statistics":
        return "statistics: " in patient.said(at)
    if phase == "calibration":
        return any(p.cmdline()[-1:] == ["worker"] for p in below(pid))
    states = Counter(dict(patient.query("SELECT state, COUNT(*) FROM trials GROUP BY state")))
    if phase == "first trial":
        return states["RUNNING"] > 0
    if phase == "trials":
        return states["COMPLETE"] > complete
    return bool(patient.query("SELECT 1 FROM trials WHERE stage = 'confirm' AND state IN ('RUNNING', 'COMPLETE')"))


def below(pid: int) -> list[psutil.Process]:
    try:
        return [p for p in psutil.Process(pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def rounds(world: str, folder: Path, times: int, draw: random.Random, undisturbed: tuple[str, set[str]]) -> Patient:
    """Kill a study in every phase, let it end, compare; from nothing again. Kills are counted by phase in `harm`."""
    patient = Patient(WORLDS[world](folder))
    for _ in range(times):
        for phase in ROUND[world]:
            at, complete = patient.place(), len(patient.finished())
            process = patient.start("auto", folder)
            begun = lambda: _begun(patient, phase, process.pid, at, complete)  # noqa: B023, E731
            if patient.wait_until(process, begun):
                time.sleep(draw.uniform(0, DELAY[phase]))
                if patient.kill(process):
                    patient.attacks[f"SIGKILL: {phase}"] += 1
                    patient.attacks[LATE] += bool(patient.finished())
            patient.look_for_errors(patient.said(at))
        ended = patient.run("auto", folder)
        if ended.code != 0:
            patient.hurt("runs that failed", ended.text[-300:])
        patient.compare(*undisturbed)
        shutil.rmtree(folder / ".djsb")
    return patient


def beside(folder: Path, times: int, draw: random.Random, finished: Path) -> Patient:
    """Kill `pools`, `export`, `apply` and a migration. finished: a study at its end, which is copied."""
    patient = Patient(shutil.copytree(finished, folder))
    ranking, trials = patient.rank(), {t[0] for t in patient.finished()}
    pool = patient.query("SELECT id FROM pools ORDER BY id")[0][0]
    out = folder / "kept.jsonl"
    commands = {
        "pools": ("pools", folder),
        "export": ("export", "pool", pool, "--dir", folder, "--out", folder / "pool.jsonl", "--force"),
        "apply": ("apply", folder / "recipe.yaml", "--data", folder / "rows.jsonl", "--out", out, "--force"),
    }  # fmt: skip
    for name, command in commands.items():
        for _ in range(times):
            if name == "pools":
                shutil.rmtree(folder / ".djsb" / "cache", ignore_errors=True)
            process = patient.start(*command)
            time.sleep(draw.uniform(0.3, BESIDE[name]))
            if patient.kill(process):
                patient.attacks[f"SIGKILL: {name}"] += 1
                patient.attacks[LATE] += 1
        ended = patient.run(*command)
        if ended.code != 0:
            patient.hurt("runs that failed", f"{name}: {ended.text[-300:]}")
    patient.compare(ranking, trials)
    return patient


def migrations(folder: Path, times: int, draw: random.Random) -> Patient:
    """Kill the first command on an old study, while it brings the database up to date."""
    reference = Patient(old(folder.with_name(folder.name + "-reference")))
    ranking, trials = reference.rank(), {t[0] for t in reference.finished()}
    patient = Patient(folder)
    for _ in range(times):
        shutil.rmtree(folder, ignore_errors=True)
        old(folder)
        process = patient.start("rank", folder)
        time.sleep(draw.uniform(0.2, BESIDE["migration"]))
        if patient.kill(process):
            patient.attacks["SIGKILL: migration"] += 1
            patient.attacks[LATE] += 1
        patient.compare(ranking, trials)
    return patient


def budget(folder: Path) -> tuple[float, float]:
    """(limit, spent) in device-seconds of a study whose trials are long beside its budget."""
    shutil.rmtree(folder, ignore_errors=True)
    patient = Patient(WORLDS["command"](folder))
    trainer = folder / "trainer.py"
    trainer.write_text(trainer.read_text().replace("time.sleep(0.15)", "time.sleep(3)"))
    process = patient.start("auto", folder, "--budget", "15s")
    children = []
    while process.poll() is None:
        children = below(process.pid) or children
        time.sleep(0.5)
    alive_after(children, GRACE)
    return 15.0, float(patient.query("SELECT SUM(seconds) FROM costs")[0][0])
