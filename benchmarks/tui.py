"""The terminal UI on a large, busy study, measured from outside: `make bench-tui`.

1,000 pools, 10,000 trials, 500,000 curve points, an engine's stand-in that commits 20 times a second. The real
`djsb tui` runs in a pseudo-terminal of 160 × 48: keys are written to it, and what it writes is read by a terminal
emulator (pyte) until the screen shows what the key should bring. A time is that of the bytes that brought it.
`--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import queue
import re
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
MODES = {  # key → the screen's name, something of its content
    "1": ("Overview", r" 1 +[▲▼·] "), "2": ("OPs", r"statistic_\d\d +op_"), "3": ("Correlations", r"1A statistic_00"),
    "4": ("Proposals", r"○ queued"), "5": ("Trials", r"● done"), "6": ("Recipes", r"ckpt₀"), "7": ("Log", r"note"),
}  # fmt: skip
FIGURES = {  # what is measured → how it reads, goal
    "first paint": ("first paint: stages, budget, what runs (ms)", "1500"),
    "leaderboard": ("leaderboard of 999 pools is there (ms)", ""),
    "first switch": ("first look at each of the other six screens (ms)", "150"),
    "switch": ("switch to each of the seven screens (ms)", "150"),
    "key": ("cursor key in the table of trials (ms)", "50"),
    "leaving": ("leaving (ms)", "1000"),
    "memory, UI": ("peak memory of the UI (MB, PSS)", ""),
    "memory, feed": ("peak memory of its reading process (MB, PSS)", ""),
    "memory, both": ("peak memory of both (MB, PSS)", "250"),
    "share, UI": ("CPU of the UI while keys are pressed (% of a core)", ""),
    "share, feed": ("CPU of its reading process meanwhile (% of a core)", ""),
}
Figures = dict[str, list[tuple[float, float | None]]]
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
        self._chunks: queue.Queue[tuple[float, bytes]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Note when bytes come, however long the emulator takes to understand them."""
        with contextlib.suppress(OSError):
            while chunk := os.read(self.master, 1 << 16):
                self._chunks.put((time.monotonic(), chunk))

    def until(self, seen: Callable[[], bool]) -> float:
        """When the bytes came after which the screen shows what is looked for; `time.monotonic()`."""
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                at, chunk = self._chunks.get(timeout=left)
                while not self._chunks.empty():  # looking at the screen takes longer than what comes meanwhile
                    at, more = self._chunks.get()
                    chunk += more
                self._stream.feed(chunk)
                if seen():
                    return at
        raise SystemExit("the screen never showed what it should:\n" + "\n".join(self.screen.display))

    def press(self, key: str, seen: Callable[[], bool]) -> tuple[float, float]:
        """Milliseconds from a key to the screen that shows its effect: of the clock, and of the UI's CPU time."""
        self.settle(0.3)
        used, began = cpu_ms(self.process.pid), time.monotonic()
        os.write(self.master, key.encode())
        return 1000 * (self.until(seen) - began), cpu_ms(self.process.pid) - used

    def settle(self, seconds: float) -> None:
        """Read on for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._stream.feed(self._chunks.get(timeout=left)[1])

    def line(self, number: int) -> str:
        """A line's text."""
        return self.screen.display[number]

    def shows(self, pattern: str) -> bool:
        """True when some line holds what the pattern finds."""
        return any(re.search(pattern, line) for line in self.screen.display)

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


def cpu_ms(process: int) -> float:
    """CPU time that a process has used so far, all its threads."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(t.read_text().split()[0]) for t in tasks) / 1e6


def one_run(folder: Path) -> Figures:
    """All figures of one start of the UI: milliseconds of the clock and of CPU time, MB, percent of a core."""
    found: Figures = {}
    terminal = Terminal([str(DJSB), "tui", str(folder)])
    over, memory = threading.Event(), dict[str, float]()
    watcher = threading.Thread(target=lambda: memory.update(peak(terminal.process, over)))
    watcher.start()
    try:
        ui = terminal.process.pid
        for name, sign in (("first paint", r"probe +\S+ 5000/5000"), ("leaderboard", r" 1 +[▲▼·] ")):
            shown = terminal.until(lambda s=sign: terminal.shows(s))
            found[name] = [(1000 * (shown - terminal.began), cpu_ms(ui))]
        terminal.settle(1)
        found["first switch"] = [_switch(terminal, key) for key in "234567"]
        _switch(terminal, "1")
        found["switch"] = [_switch(terminal, key) for key in "2345671"]
        _switch(terminal, "5")
        terminal.settle(1)
        (feed,) = psutil.Process(ui).children()
        before = {"UI": cpu_ms(ui), "feed": cpu_ms(feed.pid)}, time.monotonic()
        found["key"] = _cursor_keys(terminal)
        wall = 1000 * (time.monotonic() - before[1])
        for name, pid in (("UI", ui), ("feed", feed.pid)):
            found[f"share, {name}"] = [(100 * (cpu_ms(pid) - before[0][name]) / wall, None)]
        began = time.monotonic()
        os.write(terminal.master, b"q")
        terminal.process.wait(PATIENCE)
        found["leaving"] = [(1000 * (time.monotonic() - began), None)]
    finally:
        over.set()
        watcher.join()
        if terminal.process.poll() is None:
            terminal.process.kill()
    return found | {f"memory, {name}": [(value, None)] for name, value in memory.items()}


def _switch(terminal: Terminal, key: str) -> tuple[float, float]:
    """To another screen, until its name and something of its content are there."""
    title, content = MODES[key]
    return terminal.press(key, lambda: terminal.line(0).startswith(f" {title} ") and terminal.shows(content))


def _cursor_keys(terminal: Terminal) -> list[tuple[float, float | None]]:
    """Down and up again in the table of trials; the row under the cursor has another ground."""
    head = next(n for n in range(LINES) if "✓" in terminal.line(n))
    cursor = terminal.ground(head + 1)
    rows = [*range(head + 2, head + 2 + KEYS // 2), *range(head + KEYS // 2, head, -1)]
    keys = ["\x1b[B"] * (KEYS // 2) + ["\x1b[A"] * (KEYS // 2)
    return [
        terminal.press(key, lambda r=row: terminal.ground(r) == cursor) for key, row in zip(keys, rows, strict=True)
    ]


def row(name: str, values: list[tuple[float, float | None]], goal: str = "") -> str:
    """One line of the table: median, 95th percentile, range; median and 95th percentile of the UI's CPU time."""
    clock, used = [c for c, _ in values], [u for _, u in values if u is not None]
    cells = [
        f"{statistics.median(clock):.0f}", f"{_high(clock):.0f}", f"{min(clock):.0f}–{max(clock):.0f}",
        f"{statistics.median(used):.0f} / {_high(used):.0f}" if used else "–", str(len(values)), goal,
    ]  # fmt: skip
    return f"| {name} | {' | '.join(cells)} |"


def _high(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sys.setswitchinterval(0.0005)  # bytes are noted when they come, not when the emulator has a moment
    from benchmarks.tui_study import write_study

    runs: list[Figures] = []
    with tempfile.TemporaryDirectory() as scratch:
        write_study(Path(scratch))
        stand_in = [sys.executable, str(ROOT / "benchmarks" / "tui_study.py"), scratch]
        with subprocess.Popen(stand_in, stdout=subprocess.PIPE) as engine:
            try:
                assert engine.stdout is not None and engine.stdout.readline() == b"ready\n"
                for _ in range(args.repeats):
                    runs.append(one_run(Path(scratch)))
                    print({k: [round(v) for v, _ in values] for k, values in runs[-1].items()}, flush=True)
            finally:
                engine.kill()
    joined = {name: [v for r in runs for v in r[name]] for name in runs[0]}
    head = (
        "| what | median | p95 | range | CPU time of the UI, median / p95 | n | goal |\n|---|---|---|---|---|---|---|"
    )
    table = "\n".join([head, *(row(text, joined[name], goal) for name, (text, goal) in FIGURES.items())])
    print(table)
    if args.write:
        from benchmarks.write import write_section

        load = f"Load average of the last minute when it ended: {os.getloadavg()[0]:.1f}"
        notes = (
            f"{args.repeats} runs, 160 × 48, 1,000 pools, 10,000 trials, 500,000 curve points, 20 commits a second. "
            f"{load}: above the number of cores, times of the clock say more of the machine's other work than of the "
            "UI, whose CPU time depends less on it."
        )
        write_section("tui", "Terminal UI (`make bench-tui`)", f"{table}\n\n{notes}")


if __name__ == "__main__":
    main()
