"""Runs a command and sees to its end: `python program_guard.py PROGRAM ARGUMENTS…`, standard library only.

All that the command starts is ended, wherever it went (other process groups and sessions too): when the command itself
ends, and when standard input closes, which is when whoever started it asks for it or has died. First SIGTERM, so that a
cluster launcher can take its job back, then SIGKILL. Linux only, as it adopts what it did not start
(PR_SET_CHILD_SUBREAPER).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MARK = "DJSB_OWNER"  # of the environment: the command that a process belongs to, see lifetime.py
NOT_STARTED = 127  # exit code, as a shell's
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # of prctl


def below(parent: int) -> list[int]:
    """All processes below one, children first; those that wait to be reaped are left aside."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, above = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if state != "Z":
            children.setdefault(int(above), []).append(int(entry.name))
    found = []
    queue = [parent]
    while queue:
        here = children.get(queue.pop(), [])
        found += here
        queue += here
    return found


def end_all() -> None:
    """End everything below this process."""
    deadline = time.monotonic() + GRACE
    kind = signal.SIGTERM
    while left := below(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)
        if kind == signal.SIGTERM:
            while time.monotonic() < deadline and below(os.getpid()):
                time.sleep(0.05)
            kind = signal.SIGKILL
        else:
            time.sleep(0.02)


def start(command: list[str], **more: Any) -> "subprocess.Popen[bytes]":
    """Start a command under its guard. more: as of Popen."""
    if MARK in os.environ and more.get("env") is not None:
        more["env"] = {**more["env"], MARK: os.environ[MARK]}
    guarded = [sys.executable, "-I", "-S", __file__, *command]
    return subprocess.Popen(guarded, stdin=subprocess.PIPE, start_new_session=True, **more)


def end(guard: "subprocess.Popen[bytes]") -> None:
    """Let the guard end the command, in its own time of grace."""
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def main() -> None:
    """Run the command; exit with its code, or 128 and the number of the signal that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: threading.Thread(target=end_all, daemon=True).start())
    prctl = ctypes.CDLL(None).prctl
    prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        command = subprocess.Popen(
            sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )  # fmt: skip
    except OSError as error:
        print(f"{sys.argv[1]} cannot be started: {error.strerror}", file=sys.stderr)
        os._exit(NOT_STARTED)

    asked = threading.Event()

    def listen() -> None:
        while os.read(0, 1024):
            pass
        asked.set()
        end_all()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    code = command.wait()
    if asked.is_set():
        listener.join()
    end_all()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
