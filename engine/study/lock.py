"""At most one engine a study."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from engine.base.errors import LockedError


class EngineLock:
    """At most one engine a study; released by the system when the process dies.

    unclean: the last one that held it did not end by itself.
    """

    def __init__(self, state: Path) -> None:
        self._file: IO[str] = (state / "engine.lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise LockedError(
                f"another engine (process {holder}) holds this study; watch it with djsb status, or stop it first"
            ) from None
        self._file.seek(0)
        self.unclean = bool(self._file.read())  # the last engine was killed, or the power failed
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> EngineLock:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.truncate(0)
        self._file.close()


def engine_pid(state: Path) -> int | None:
    """The process that holds the study's engine lock, or None."""
    file = state / "engine.lock"
    if not file.is_file():
        return None
    with file.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = lock.read().strip()
            return int(text) if text.isdigit() else -1
    return None
