"""A study under attack: commands on it, what its database says, what is left of it in processes and files."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds that a command may take
GRACE = 10.0  # seconds in which processes must end with their engine
BAD_WORDS = ("internal error", "Traceback (most recent call last)")
SCRATCH = ("*.tmp", "*.tmp.*", ".unpack-*", "*.partial", "djsb-*")
Finished = set[tuple[Any, ...]]


@dataclass
class Ended:
    """How a command ended. code: None when it was killed. text: all that it said."""

    code: int | None
    text: str


@dataclass
class Patient:
    """A study in a folder of its own, and the harm that was counted on it."""

    folder: Path
    prelude: str = ""  # Python that a command runs first
    elsewhere: Path | None = None  # where its log and TMPDIR lie, when not beside it
    attacks: Counter[str] = field(default_factory=Counter)
    harm: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def temp(self) -> Path:
        """The TMPDIR of its commands."""
        made = self._beside("-tmp")
        made.mkdir(exist_ok=True)
        return made

    def _beside(self, end: str) -> Path:
        return (self.elsewhere or self.folder.parent) / f"{self.folder.name}{end}"

    @property
    def database(self) -> Path:
        """The study's database."""
        return self.folder / ".djsb" / "study.db"

    def hurt(self, what: str, note: str, n: int = 1) -> None:
        """Count a harm and say what it was."""
        self.harm[what] += n
        self.notes.append(f"{self.folder.name}: {what}: {note}")

    # -- commands ------------------------------------------------------------------------------

    def start(self, *arguments: object, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a command. before: a program that starts it, such as setpriv."""
        entry = [str(ROOT / "djsb.py")]
        if self.prelude:
            entry = ["-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{self.prelude}\nimport djsb; djsb.main()"]
        with self._beside(".log").open("ab") as log:
            return subprocess.Popen(
                [*before, sys.executable, *entry, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.temp), "PYTHONUNBUFFERED": "1"}, cwd=self.folder.parent,
            )  # fmt: skip

    def said(self, start: int = 0) -> str:
        """All that its commands have said, from a place of the log on."""
        file = self._beside(".log")
        return file.read_bytes()[start:].decode(errors="replace") if file.exists() else ""

    def place(self) -> int:
        """Where the log ends."""
        file = self._beside(".log")
        return file.stat().st_size if file.exists() else 0

    def run(self, *arguments: object, before: Sequence[str] = ()) -> Ended:
        """Run a command to its end; what it must never say is counted."""
        at = self.place()
        process = self.start(*arguments, before=before)
        try:
            code: int | None = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            code = None
            self.hurt("hung", " ".join(map(str, arguments)))
        ended = Ended(code, self.said(at))
        self.look_for_errors(ended.text)
        return ended

    def look_for_errors(self, text: str) -> None:
        """Count internal errors."""
        for word in BAD_WORDS:
            if word in text:
                at = text.index(word)
                self.hurt("internal errors", text[max(0, at - 80) : at + 300].replace("\n", " "))
                return

    def rank(self) -> str:
        """The ranking as JSON, or what was said in its place."""
        ended = subprocess.run(
            [sys.executable, str(ROOT / "djsb.py"), "rank", str(self.folder), "--json"],
            capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(self.temp)},
        )  # fmt: skip
        self.look_for_errors(ended.stderr)
        return ended.stdout if ended.returncode == 0 else ended.stderr

    # -- what is there -------------------------------------------------------------------------

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the database, read by SQLite itself; none while there is no such table."""
        if not self.database.exists():
            return []
        try:
            with closing(sqlite3.connect(self.database, timeout=30)) as db:
                return db.execute(sql).fetchall()
        except sqlite3.DatabaseError:
            return []

    def finished(self) -> Finished:
        """The trials that were reported as finished, with what they took."""
        return set(self.query("SELECT id, attempts, seconds, finished FROM trials WHERE state = 'COMPLETE'"))

    def compare(self, ranking: str, trials: set[str]) -> None:
        """Count what differs from the run that nobody disturbed. Call at the end."""
        if self.rank() != ranking:
            self.hurt("rankings that differ", self.rank()[:300])
        own = {t[0] for t in self.finished()}
        if trials - own:
            self.hurt("finished trials lost", f"{sorted(trials - own)[:4]}", len(trials - own))
        twice = self.query(
            "SELECT c.trial FROM costs c JOIN trials t ON t.id = c.trial WHERE c.kind = 'trial' "
            "GROUP BY c.trial HAVING COUNT(*) > MAX(t.attempts)"
        ) + self.query(
            "SELECT t.id FROM trials t LEFT JOIN costs c ON c.id = t.id || ':' || t.attempts "
            "WHERE t.state = 'COMPLETE' AND (c.seconds IS NULL OR c.seconds != t.seconds)"
        )
        if twice:
            self.hurt("charged twice or not", str(twice[:4]), len(twice))
        self.sweep_up()

    def sweep_up(self) -> None:
        """Count scratch that is left, once no command runs."""
        left = [p for pattern in SCRATCH for p in self.folder.rglob(pattern)]
        left += [p for p in self.temp.iterdir() if not p.name.startswith(("torch", "matplotlib", "pymp-"))]
        rows = self.folder / ".djsb" / "rows"
        left += list(rows.iterdir()) if rows.is_dir() else []
        if left:
            self.hurt("scratch left", str([str(p) for p in left[:5]]), len(left))

    # -- attacks -------------------------------------------------------------------------------

    def kill(self, process: subprocess.Popen[str]) -> bool:
        """SIGKILL of the engine alone; False when it had ended. Its children must end by themselves."""
        try:
            children = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        if process.poll() is not None:
            return False
        before = self.finished()
        process.send_signal(signal.SIGKILL)
        process.wait()
        lost = before - self.finished()
        if lost:
            self.hurt("finished trials lost", str(sorted(t[0] for t in lost)[:4]), len(lost))
        left = alive_after(children, GRACE)
        if left:
            self.hurt("orphans", str([p.cmdline()[-2:] for p in left]), len(left))
            for orphan in left:
                orphan.kill()
        return True

    def wait_until(self, process: subprocess.Popen[str], ready: Callable[[], bool]) -> bool:
        """False when the command ended before it was ready."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            if ready():
                return True
            time.sleep(0.02)
        raise TimeoutError(f"{self.folder}: nothing to attack came")


def alive_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = [p for p in processes if _runs(p)]
        if not left:
            return []
        time.sleep(0.05)
    return [p for p in processes if _runs(p)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_tree(pid: int) -> None:
    """End a process and all below it."""
    try:
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            process.kill()
    except psutil.NoSuchProcess:
        pass


def whole_run(folder: Path) -> tuple[str, set[str]]:
    """Run a study to its end, undisturbed: its ranking, the trials that are complete."""
    patient = Patient(folder)
    ended = patient.run("auto", folder)
    if ended.code != 0:
        raise RuntimeError(f"{folder}: the undisturbed run failed: {ended.text[-500:]}")
    return patient.rank(), {t[0] for t in patient.finished()}
