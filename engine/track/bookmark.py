"""How far an exporter has come: which trials a tracker has whole. What is lost of it, is read of the tracker again."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import IO

from engine.base.confine import inside
from engine.base.durable import Damaged, check, write_text
from engine.base.errors import LockedError
from engine.base.ids import content_id, json_text
from engine.track.contract import Target


class Bookmark:
    """Trial → what it was when the tracker got it whole. One process at a time has it.

    Raises: LockedError while another one exports the study to the same place.
    """

    def __init__(self, state: Path, target: Target) -> None:
        key = content_id([target.kind, target.uri, target.project, sorted(target.options.items())])
        folder = inside(state, "track")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = inside(folder, f"{target.kind}-{key}.json")
        self._lock: IO[str] = inside(folder, f"{target.kind}-{key}.lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise LockedError(
                f"another process exports this study to {target.kind}; it has all that djsb track would give it"
            ) from None
        self.marks = self._read()

    def _read(self) -> dict[str, str]:
        try:
            check(self._file, deep=True)
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (Damaged, OSError, ValueError):
            return {}
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def save(self) -> None:
        """Put it on the disk, whole."""
        write_text(self._file, json_text(self.marks))

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()
