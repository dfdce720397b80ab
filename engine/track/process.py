"""Each tracker has a process of its own: one that hangs, fails or dies is in nobody's way.

The process gets its target as a line of JSON, and exports what the database says now and then, until its standard input
is closed; then once more. What it says is a line of JSON each: a sign of life, a fault, or what it came to.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TextIO

from engine.base.confine import inside
from engine.base.errors import DjsbError
from engine.base.ids import json_text
from engine.base.lifetime import end_with_owner
from engine.base.paths import ENTRY, STATE_FOLDER
from engine.base.secrets import redact
from engine.settings.track import Kind
from engine.track.contract import Target
from engine.track.exporter import Exported, Exporter
from engine.track.targets import environment

POLL, LONGEST_POLL = 2.0, 60.0  # seconds between two looks; after faults up to the longer
PATIENCE = 120.0  # seconds without a sign of life after which a tracker hangs
HURRY = 2.0  # the same, where a person has ended the run at once
SHOWN = 300  # characters of a fault


def launch(kind: Kind, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a tracker's process."""
    return subprocess.Popen(
        [sys.executable, str(ENTRY), "exporter"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        env=environment(kind),
    )  # fmt: skip


class Child:
    """A tracker's process, seen by the one that started it."""

    def __init__(self, target: Target, fault: Callable[[str], None]) -> None:
        self.target, self._fault = target, fault
        self.result: dict[str, Any] = {}
        self.faults: list[str] = []
        self._sign = time.monotonic()
        log = inside(target.folder / STATE_FOLDER, "logs")
        log.mkdir(exist_ok=True)
        self._log = inside(log, f"track-{target.kind}.log")
        with self._log.open("ab") as said:
            self._process = launch(target.kind, said)
        self._write(json_text({**asdict(target), "folder": str(target.folder)}) + "\n")
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except OSError:
            return  # it has died, which its end tells

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._sign = time.monotonic()
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "fault" in said:
                self._tell(str(said["fault"]))
            self.result |= said.get("result", {})

    def _tell(self, text: str) -> None:
        self.faults.append(text)
        self._fault(f"{self.target.kind}: {text}")

    def finish(self) -> None:
        """Ask it for the last export."""
        self._sign = time.monotonic()
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            return

    def wait(self, patience: Callable[[], float]) -> None:
        """Wait for its end, as long as it shows that it lives; then end it. patience: seconds without a sign."""
        try:
            while self._process.poll() is None:
                if time.monotonic() - self._sign > patience():
                    self._tell(
                        f"it hangs, so it was ended after {patience():g} s; djsb track goes on where it was (its log: "
                        f"{self._log})"
                    )
                    return
                time.sleep(0.05)
            self._reader.join(1)
            if self._process.returncode and not self.faults:
                self._tell(f"it ended with {self._process.returncode}; see {self._log}, then djsb track goes on")
        finally:
            self._process.kill()
            self._process.wait()


class Trackers:
    """The processes of all trackers of a study. fault: is told what goes wrong, from other threads."""

    def __init__(self, targets: Sequence[Target], fault: Callable[[str], None] = lambda _: None) -> None:
        self.children = [Child(target, fault) for target in targets]

    def close(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Have each export what is left. hurried: True once a person has no time for that."""
        for child in self.children:
            child.finish()
        for child in self.children:
            child.wait(lambda: HURRY if hurried() else PATIENCE)


def serve() -> None:
    """The process itself. Standard output is for its messages only: clients print."""
    end_with_owner()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which then ends this
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    target = Target(**{**asked, "folder": Path(asked["folder"])})
    sys.exit(_run(target, said))


def _run(target: Target, said: TextIO) -> int:
    total, wait, told = Exported(), POLL, ""

    def say(**message: Any) -> None:
        said.write(json_text(message) + "\n")
        said.flush()

    try:
        exporter = Exporter(target, sign=lambda: say(alive=True))
    except DjsbError as error:
        say(fault=str(error))
        return 1
    try:
        while True:
            over = bool(select.select([sys.stdin], [], [], wait)[0])
            try:
                done = exporter.once(last=over)
                total.add(done)
                wait, told = POLL, ""
            except Exception as error:  # whatever a client raises: it is told, and tried again
                fault = _in_words(error)
                if fault != told:
                    say(fault=fault)
                wait, told = min(2 * wait, LONGEST_POLL), fault
            if over:
                break
        look = exporter.tracker.look if not told and total.trials else ""
        say(result={"trials": total.trials, "values": total.values, "look": look})
    finally:
        exporter.close()
    return int(bool(told))


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return redact(text if isinstance(error, DjsbError) else f"{type(error).__name__}: {text}")[:SHOWN]
