"""A job's process, seen from the engine: started, listened to, ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.base.environment import passed
from engine.base.lifetime import state
from engine.base.lines import Lines, read_object, storable
from engine.base.paths import ENTRY
from engine.base.program_guard import GRACE
from engine.base.pulse import Pulse
from engine.base.secrets import redact

SILENCE = 300.0  # seconds without a sign of life after which a job's process counts as lost
PATIENCE = 3600.0  # the same of one that is stopped
TICK = 2.0  # seconds between two charges
_END = re.compile(rb"[\r\n]")


class Lost(Exception):
    """The process died, or gave no sign of life. `str` says which."""


class Refused(Exception):
    """The job ended with an error of its own. `str` is its line."""


class Spent(Exception):
    """The budget is spent."""


@dataclass
class Listener:
    """What is done with what comes. charge: seconds so far → True while the job may go on."""

    lines: Callable[[list[str]], None]
    points: Callable[[list[tuple[str, int, float]]], None]
    charge: Callable[[float], bool]


def run_job(order: dict[str, Any], environ: Iterable[str], listener: Listener) -> tuple[dict[str, Any], float]:
    """Run a job to its end: what it wrote as its answer, and its seconds. Raises: Lost, Refused, Spent."""
    process = subprocess.Popen(
        [sys.executable, str(ENTRY), "job"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=passed(more=environ), start_new_session=True,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order, allow_nan=False).encode() + b"\n")
            process.stdin.close()
        seconds = _listen(process, listener)
        return json.loads(Path(order["answer"]).read_text(encoding="utf-8")), seconds
    finally:
        _end(process)


def _listen(process: subprocess.Popen[bytes], listener: Listener) -> float:
    """Until it says how it ended: its seconds, without those in which the engine or the machine stood still."""
    events: queue.Queue[tuple[str, Any]] = queue.Queue()
    for kind, stream in (("event", process.stdout), ("text", process.stderr)):
        threading.Thread(target=_read, args=(kind, stream, events), daemon=True).start()
    pulse = Pulse()
    pulse.start()
    began = heard = charged = time.monotonic()
    texts: list[str] = []
    points: list[tuple[str, int, float]] = []
    open_streams, ending = 2, None
    try:
        while open_streams:
            with contextlib.suppress(queue.Empty):
                kind, content = events.get(timeout=0.2)
                if content is None:
                    open_streams -= 1
                elif kind == "text":
                    texts.append(content)
                else:
                    heard = time.monotonic()
                    ending = _take(content, texts, points) or ending
            if gap := pulse.gap():
                began += gap.slept + gap.stopped
                heard = time.monotonic()
            now = time.monotonic()
            if now - charged > TICK or not open_streams:
                charged = now
                _tell(listener, texts, points)
                if not listener.charge(now - began) and ending is None:
                    raise Spent
            if now - heard > (PATIENCE if state(process.pid) in ("T", "t") else SILENCE):
                raise Lost(f"no sign of life for {now - heard:.0f} s")
            if ending is not None and now - heard > GRACE:
                break  # something that it started holds its streams open
    finally:
        pulse.stop()
        _tell(listener, texts, points)
        listener.charge(time.monotonic() - began)
    if ending is None:
        raise Lost(f"its process died (exit code {process.wait()})")
    if ending["event"] == "error":
        raise Refused(ending["text"])
    return time.monotonic() - began


def _take(event: dict[str, Any], texts: list[str], points: list[tuple[str, int, float]]) -> dict[str, Any] | None:
    """Note an event; the one that ends the job is given back."""
    if event.get("event") == "line":
        texts.append(str(event.get("text")))
    elif event.get("event") == "point" and isinstance(event.get("value"), int | float):
        points.append((str(event["name"]), int(event["step"]), float(event["value"])))
    elif event.get("event") in ("done", "error"):
        return event
    return None


def _tell(listener: Listener, texts: list[str], points: list[tuple[str, int, float]]) -> None:
    if texts:
        listener.lines([storable(redact(text)) for text in texts])
        texts.clear()
    if points:
        listener.points(points.copy())
        points.clear()


def _read(kind: str, stream: IO[bytes] | None, events: queue.Queue[tuple[str, Any]]) -> None:
    assert stream is not None
    lines = Lines()
    while data := os.read(stream.fileno(), 1 << 16):
        for line in lines.feed(_END.sub(b"\n", data)):
            if kind == "event":
                if event := read_object(line or b""):
                    events.put((kind, event))
            elif line and (text := line.decode("utf-8", "replace").strip()):
                events.put((kind, text[:500]))
    events.put((kind, None))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group: first SIGTERM, so that programs under it end with what they started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE if number == signal.SIGTERM else None)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
