"""The terminal UI on a large, busy study, measured from outside: `make bench-tui`.

1,000 pools, 10,000 trials, 500,000 curve points, an engine's stand-in that commits 20 times a second. The real
`djsb tui` runs in a pseudo-terminal of 160 × 48: keys are written to it, and what it writes is read by a terminal
emulator (pyte) until the screen shows what the key should bring. A time is that of the bytes that brought it.
`--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyte

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
COLUMNS, LINES = 160, 48
DJSB = Path(sys.executable).with_name("djsb")
MODES = {"2": "OPs", "3": "Correlations", "4": "Proposals", "5": "Trials", "6": "Recipes", "7": "Log", "1": "Overview"}
GOALS = {"first paint": 1500, "first switch": 150, "switch": 150, "key": 50}
MEMORY = 250  # MB, UI and feed together
KEYS = 40  # cursor keys a run
PATIENCE = 30.0  # seconds


class Terminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, command: list[str]) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self.screen)
        self._unread = b""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )  # fmt: skip
        os.close(slave)
        self.master = master

    def until(self, seen: Callable[[], bool]) -> float:
        """When the bytes came after which the screen shows what is looked for; `time.monotonic()`."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if not select.select([self.master], [], [], 0.2)[0]:
                continue
            chunk, at = os.read(self.master, 1 << 16), time.monotonic()
            # pyte knows no sequences with `>` or `<`, which ask the terminal for its abilities
            self._stream.feed(chunk)
            if seen():
                return at
        raise SystemExit("the screen never showed what it should:\n" + "\n".join(self.screen.display))

    def press(self, key: str, seen: Callable[[], bool]) -> float:
        """Milliseconds from a key to the screen that shows its effect."""
        self.settle(0.3)
        began = time.monotonic()
        os.write(self.master, key.encode())
        return 1000 * (self.until(seen) - began)

    def settle(self, seconds: float) -> None:
        """Read on for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                self._stream.feed(os.read(self.master, 1 << 16))

    def line(self, number: int) -> str:
        """A line's text."""
        return self.screen.display[number]

    def shown(self, text: str) -> int | None:
        """The first line that holds a text."""
        return next((n for n, line in enumerate(self.screen.display) if text in line), None)

    def ground(self, line: int, column: int = 2) -> str:
        """The background colour of a cell."""
        return str(self.screen.buffer[line][column].bg)


def peak(process: subprocess.Popen[bytes], over: threading.Event) -> dict[str, float]:
    """Largest PSS of the UI and of its feed in MB, looked at twice a second until it is over; runs in a thread."""
    found = {"UI": 0.0, "feed": 0.0, "both": 0.0}
    ui = psutil.Process(process.pid)
    while not over.wait(0.5):
        try:
            own = ui.memory_full_info().pss / 1e6
            feed = sum(p.memory_full_info().pss for p in ui.children(recursive=True)) / 1e6
        except psutil.NoSuchProcess:
            continue
        now = {"UI": own, "feed": feed, "both": own + feed}
        found = {name: max(found[name], value) for name, value in now.items()}
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


def one_run(folder: Path) -> dict[str, list[float]]:
    """All figures of one start of the UI, milliseconds, MB and CPU shares."""
    found: dict[str, list[float]] = {"first switch": [], "switch": [], "key": []}
    terminal = Terminal([str(DJSB), "tui", str(folder)])
    over, memory = threading.Event(), dict[str, float]()
    watcher = threading.Thread(target=lambda: memory.update(peak(terminal.process, over)))
    watcher.start()
    try:
        stages = terminal.until(lambda: terminal.shown("probe") is not None and terminal.shown("5000/5000") is not None)
        board = terminal.until(lambda: terminal.shown("▲ helps") is not None or terminal.shown("· unclear") is not None)
        found["first paint"] = [1000 * (stages - terminal.began)]
        found["leaderboard"] = [1000 * (board - terminal.began)]
        ui = psutil.Process(terminal.process.pid)
        found["start, UI's CPU"] = [1000 * cpu_seconds(ui)]
        terminal.settle(3)
        for turn in ("first switch", "switch"):
            for key, title in MODES.items():
                if turn == "first switch" and key == "1":
                    terminal.press(key, lambda: terminal.line(0).startswith(" Overview"))
                    continue
                found[turn].append(terminal.press(key, lambda t=title: terminal.line(0).startswith(f" {t}")))
        terminal.press("5", lambda: terminal.line(0).startswith(" Trials"))
        terminal.settle(1)
        before = cpu_seconds(ui), sum(cpu_seconds(c) for c in ui.children()), time.monotonic()
        first = terminal.shown("✓")
        assert first is not None
        cursor = terminal.ground(first + 1)
        for row in range(first + 2, first + 2 + KEYS // 2):
            found["key"].append(terminal.press("\x1b[B", lambda r=row: terminal.ground(r) == cursor))
        for row in range(first + KEYS // 2, first, -1):
            found["key"].append(terminal.press("\x1b[A", lambda r=row: terminal.ground(r) == cursor))
        wall = time.monotonic() - before[2]
        found["CPU share, UI"] = [100 * (cpu_seconds(ui) - before[0]) / wall]
        found["CPU share, feed"] = [100 * (sum(cpu_seconds(c) for c in ui.children()) - before[1]) / wall]
        began = time.monotonic()
        os.write(terminal.master, b"q")
        terminal.process.wait(PATIENCE)
        found["quit"] = [1000 * (time.monotonic() - began)]
    finally:
        over.set()
        watcher.join()
        if terminal.process.poll() is None:
            terminal.process.kill()
    for name, value in memory.items():
        found[f"memory, {name}"] = [value]
    return found


def row(name: str, values: list[float], goal: str = "") -> str:
    """One line of the table: median, 95th percentile, range."""
    digits = 0 if max(values) >= 10 else 1
    high = sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]
    spread = f"{min(values):.{digits}f}–{max(values):.{digits}f}"
    return (
        f"| {name} | {statistics.median(values):.{digits}f} | {high:.{digits}f} | {spread} | {len(values)} | {goal} |"
    )


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    runs: list[dict[str, list[float]]] = []
    from benchmarks.tui_study import write_study

    with tempfile.TemporaryDirectory() as scratch:
        write_study(Path(scratch))
        engine = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "tui_study.py"), scratch], stdout=subprocess.PIPE
        )
        try:
            assert engine.stdout is not None and engine.stdout.readline() == b"ready\n"
            for _ in range(args.repeats):
                runs.append(one_run(Path(scratch)))
                print({k: [round(v) for v in values] for k, values in runs[-1].items()}, flush=True)
        finally:
            engine.kill()
    joined = {name: [v for r in runs for v in r[name]] for name in runs[0]}
    lines = [
        row("first paint: stages, budget, what runs (ms)", joined["first paint"], "1500"),
        row("the leaderboard of 999 pools is there (ms)", joined["leaderboard"], ""),
        row("first switch to each screen (ms)", joined["first switch"], "150"),
        row("switch to each screen (ms)", joined["switch"], "150"),
        row("cursor key in the table of trials (ms)", joined["key"], "50"),
        row("leaving (ms)", joined["quit"], "1000"),
        *(row(f"peak {n} (MB, PSS)", joined[n], "250" if "both" in n else "") for n in joined if "memory" in n),
        row("CPU of the UI's process until the leaderboard is there (ms)", joined["start, UI's CPU"], ""),
        *(row(f"{n} (% of a core)", joined[n], "") for n in joined if "share" in n),
    ]
    table = "\n".join(["| what | median | p95 | range | n | goal |", "|---|---|---|---|---|---|", *lines])
    print(table)
    if args.write:
        from benchmarks.write import write_section

        load = f"load average of the last minute when it ended: {os.getloadavg()[0]:.1f}"
        write_section("tui", "Terminal UI (`make bench-tui`)", f"{table}\n\n{args.repeats} runs; {load}.")


if __name__ == "__main__":
    main()
