"""A database that another process has locked is waited for, and after a moment the wait is told, with who holds it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
TURN = 200  # milliseconds that SQLite itself waits, so that Ctrl-C is soon heard
PAUSE = 0.05  # seconds between two tries where SQLite does not wait


@dataclass
class Patience:
    """How a connection waits. seconds: at most. quiet: until `tell` is called with a line, once a wait.

    waited: seconds of all waits so far.
    """

    file: Path
    seconds: float
    quiet: float = 3.0
    tell: Callable[[str], None] = lambda _: None
    waited: float = 0.0

    def wait(self, connection: sqlite3.Connection, work: Callable[[], Result]) -> Result:
        """What `work` returns, tried again while another process holds the database.

        Not within a transaction, which has the lock. Raises: sqlite3.OperationalError after the time.
        """
        began, before, silent = time.monotonic(), self.waited, True
        while True:
            try:
                found = work()
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - began
                self.waited = before + waited
                if not is_locked(error) or connection.in_transaction or waited >= self.seconds:
                    raise
                if silent and waited >= self.quiet:
                    silent = False
                    self.tell(f"waiting for {self.file}, which {holders(self.file)} has locked")
                time.sleep(PAUSE)
                continue
            if not silent:
                self.tell(f"{self.file} was locked for {time.monotonic() - began:.0f} s; it goes on")
            return found


def is_locked(error: Exception) -> bool:
    """True for SQLITE_BUSY and SQLITE_LOCKED in all their forms."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def holders(file: Path, kind: str = "WRITE") -> str:
    """The processes that hold a lock on a database, by number and name, as far as the system says.

    kind: WRITE or READ; this process is none of the readers.
    """
    try:
        nodes = {p.stat().st_ino for p in (file, file.with_name(f"{file.name}-shm")) if p.exists()}
        lines = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "another process"
    # 1: POSIX ADVISORY WRITE 4711 fe:01:1234 120 120
    pids = {w[-4] for w in lines if w[1] != "->" and w[-5] == kind and int(w[-3].rpartition(":")[2]) in nodes}
    pids -= {str(os.getpid())} if kind == "READ" else set()
    names = [name for pid in sorted(pids) if (name := _name(pid))]
    return f"process {' and '.join(names)}" if names else "another process"


def _name(pid: str) -> str:
    try:
        return f"{pid} ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()})"
    except OSError:
        return ""
