"""No process of djsb outlives the command that started it, whatever ended that.

A command marks its environment, and so everything below it, with its process. Its children end with it; what cannot
(a stopped process, one whose guard was killed) is ended by the next command, which knows it by its dead owner's mark.
Only the user's own processes are looked at. Without /proc nothing is swept.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from engine.base.program_guard import GRACE, MARK, SET_PDEATHSIG

PROC = Path("/proc")


def begin() -> None:
    """Begin a command: end with the one that started it, mark what it will start, and sweep."""
    end_with_owner(signal.SIGTERM)
    if me := mark():
        os.environ[MARK] = me
    sweep()


def mark() -> str:
    """This process as a mark: its number, when it started, and the namespace of its number; empty without /proc."""
    found = _process(os.getpid())
    return f"{os.getpid()}:{found[0]}:{_namespace(os.getpid())}" if found else ""


def lives(owner: str) -> bool:
    """True while the process of a mark lives; also where that cannot be said, as in another container."""
    number, began, namespace = (*owner.split(":"), "", "")[:3]
    if not number.isdigit() or not began.isdigit() or namespace != _namespace(os.getpid()):
        return True
    found = _process(int(number))
    return found is not None and found[0] == began and found[1] not in "ZX"


def unmarked() -> dict[str, str]:
    """The environment without the mark, for what is meant to outlive this command: an engine that a UI starts."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def end_with_owner(number: int = signal.SIGKILL) -> None:
    """Let the system send this process a signal when its parent ends, where a command of djsb is its parent."""
    owner = os.environ.get(MARK, "")
    if not PROC.exists() or owner.partition(":")[0] != str(os.getppid()):
        return
    ctypes.CDLL(None).prctl(SET_PDEATHSIG, number, 0, 0, 0)
    if not lives(owner):  # it ended a moment before
        os._exit(1)


def end_with(parent: int) -> None:
    """Let the system kill this process, a fork, when its parent ends."""
    ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended a moment before
        os._exit(1)


def sweep() -> int:
    """End the processes whose owner is dead, first by SIGTERM; how many there were."""
    left = swept = len(_signal(signal.SIGTERM))
    deadline = time.monotonic() + GRACE
    while left:
        time.sleep(0.05)
        left = len(_signal(signal.SIGKILL if time.monotonic() > deadline else 0))
    return swept


def _signal(number: int) -> list[int]:
    """Send every orphan a signal; their numbers."""
    found = []
    for pid in _orphans():
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _is_orphan(pid):  # and not another that has got its number meanwhile
                signal.pidfd_send_signal(handle, number)
                found.append(pid)
        except OSError:
            continue
        finally:
            os.close(handle)
    return found


def _orphans() -> Iterator[int]:
    if not PROC.exists():
        return
    above = set(_line(os.getpid()))
    for entry in os.scandir(PROC):
        if entry.name.isdigit() and int(entry.name) not in above and _is_orphan(int(entry.name)):
            yield int(entry.name)


def _is_orphan(pid: int) -> bool:
    """True for a living process of ours that bears the mark of a dead one."""
    try:
        if (PROC / str(pid)).stat().st_uid != os.geteuid() or _namespace(pid) != _namespace(os.getpid()):
            return False
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    begin = f"{MARK}=".encode()
    owner = next((part[len(begin) :].decode("ascii", "replace") for part in environment.split(b"\0")
                  if part.startswith(begin)), "")  # fmt: skip
    found = _process(pid)
    return bool(owner) and found is not None and found[1] not in "ZX" and not lives(owner)


def _line(pid: int) -> Iterator[int]:
    """A process and those above it."""
    while pid > 0:
        yield pid
        found = _process(pid)
        pid = int(found[2]) if found else 0


def _process(pid: int) -> tuple[str, str, str] | None:
    """When a process started (in ticks since the machine's start), its state and its parent; None without it."""
    try:
        words = (PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return words[19], words[0], words[1]


def _namespace(pid: int) -> str:
    """Which namespace a process's number is of."""
    try:
        return str((PROC / str(pid) / "ns" / "pid").stat().st_ino)
    except OSError:
        return "unknown"


def state(pid: int) -> str:
    """The letter of a process's state, as ps shows it (T: stopped); empty without it."""
    found = _process(pid)
    return found[1] if found else ""
