"""Leaving the UI stops nothing: two UIs, each a process in a pseudo-terminal, and a real engine."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pyte
import pytest

from engine.study.lock import engine_pid
from tests.conftest import DJSB, Tiny

PATIENCE = 180  # seconds
LIMIT = 10  # seconds: a UI is left within one on a machine that has time for it


class Terminal:
    """`djsb tui` in a pseudo-terminal of 120 × 30."""

    def __init__(self, tiny: Tiny) -> None:
        self.screen = pyte.Screen(120, 30)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.process = subprocess.Popen(
            [str(DJSB), "tui", str(tiny.study)], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self.master, 1 << 16):
                with self._lock:
                    self._stream.feed(chunk)
        except OSError:
            return  # the program has ended

    def shows(self, text: str) -> bool:
        """True when some line holds the text."""
        with self._lock:
            return any(text in line for line in self.screen.display)


def wait(condition: Callable[[], Any], what: str) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.slow
def test_leaving_either_of_two_uis_leaves_the_engine_running(stopped: Tiny) -> None:
    stopped.set({"train": {"micro_batch": 8, "epochs": 200}})
    engine = subprocess.Popen(
        [str(DJSB), "auto", str(stopped.study), "--workers", "1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    terminals: list[Terminal] = []
    try:
        wait(lambda: engine_pid(stopped.study / ".djsb") == engine.pid, "the engine never took its lock")
        terminals += [Terminal(stopped), Terminal(stopped)]
        for t in terminals:
            wait(lambda t=t: t.shows("running") and t.shows("probe"), "the UI never showed the study")
        children = [[c for c in psutil.Process(t.process.pid).children() if "feed" in c.cmdline()] for t in terminals]
        assert all(len(c) == 1 for c in children), f"each UI has one process that reads, not {children}"
        for left, t in enumerate(terminals):
            os.write(t.master, b"q")
            assert t.process.wait(LIMIT) == 0
            assert engine.poll() is None and engine_pid(stopped.study / ".djsb") == engine.pid
            assert not children[left][0].is_running()
            assert all(other.process.poll() is None for other in terminals[left + 1 :])
    finally:
        for t in terminals:
            t.process.kill()
            t.process.wait()
        engine.send_signal(signal.SIGINT)
        engine.wait(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_the_ui_and_ends_its_reader(stopped: Tiny, number: int) -> None:
    t = Terminal(stopped)
    try:
        wait(lambda: t.shows("probe"), "the UI never showed the study")
        readers = [c for c in psutil.Process(t.process.pid).children() if "feed" in c.cmdline()]
        assert len(readers) == 1
        readers[0].suspend()  # not even then
        t.process.send_signal(number)
        assert t.process.wait(LIMIT) == (-number if number == signal.SIGKILL else 130)
        wait(lambda: not readers[0].is_running() or readers[0].status() == psutil.STATUS_ZOMBIE, "its reader lives on")
    finally:
        t.process.kill()
        t.process.wait()
