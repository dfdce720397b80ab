"""System: what the machine does now, what the running trials take of it, and what each trial took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from app.text.numbers import measured
from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.screens.trials import STATES
from app.tui.widgets.marks import cut, meter
from app.tui.widgets.table import KeyedTable
from engine.base.amounts import format_bytes
from engine.base.errors import DjsbError
from engine.journal.store import Row

EVERY = 2.0  # seconds between two looks while the screen is up
BAR = 20  # characters of a meter
LIVE = ["pool", "seed", "device", "cpu %", "memory", "written", "gpu %", "gpu memory", "power", "°C"]
KEPT = ["pool", "seed", "state", "cpu %", "memory", "written", "gpu %", "gpu memory", "power", "°C"]
NARROW = ("device", "state", "written", "power", "°C")  # columns that a narrow terminal does without
MEASURES = {
    "cpu %": "cpu", "memory": "memory", "written": "written", "gpu %": "gpu", "gpu memory": "gpu_memory",
    "power": "gpu_power", "°C": "gpu_temperature",
}  # fmt: skip


class System(Pane):
    """The machine and what trials take of it."""

    title_text = "System"
    help_text = """\
On top is the machine that this UI runs on: processors, memory, the disk of the study and what lies in its folder, and
each GPU as NVIDIA's driver tells (NVML): how much of the time it computed, memory, power, temperature. Where there is
no GPU it says so.

Below are the running trials as they are now, then the trials that began last, each number as highest / mean over the
trial. A worker measures itself every two seconds, on whatever machine it runs: cpu is percent of one core, memory is
resident, with its children; written went to disks; of several GPUs it is the mean use, the memory of the fullest,
the power of all, the hottest. Trials that train in one pack share a worker, and each has its numbers. – is not known.
"""

    def __init__(self) -> None:
        super().__init__()
        self._asked = -1
        self.found: Row | None = None
        self.why = ""

    def content(self) -> ComposeResult:
        """The machine, what runs, what ran."""
        yield Static(id="machine")
        yield Static("Running now", classes="title", id="live-title")
        yield KeyedTable(LIVE, id="live")
        yield Static("Trials, the latest first: highest / mean", classes="title", id="kept-title")
        yield KeyedTable(KEPT, id="kept")

    def on_mount(self) -> None:
        """Look every two seconds while the screen is up."""
        self.query_one("#kept").focus()
        self.set_interval(EVERY, self._ask)

    def on_screen_resume(self) -> None:
        """Look at once."""
        super().on_screen_resume()
        self._ask()

    def _ask(self) -> None:
        if self.is_current and self.ui.feed and not self.ui.frozen:
            self._asked = self.ui.feed.ask("system")

    def answered(self, number: int, content: Any) -> None:
        """The machine's numbers have come."""
        if number != self._asked:
            return
        self.found, self.why = (None, str(content)) if isinstance(content, DjsbError) else (content, "")
        self.refresh_data()

    def show(self, s: Snapshot) -> None:
        """The machine, then both tables."""
        wide = self.app.size.width >= 120
        self.query_one("#machine", Static).update(self._machine(wide))
        trials = self.found["trials"] if self.found else {}
        room = max(16, self.app.size.width - (104 if wide else 62))
        for name, columns, rows, kept in (
            ("#live", LIVE, s.running, False),
            ("#kept", KEPT, self._ended(s, trials), True),
        ):
            names = columns if wide else [c for c in columns if c not in NARROW]
            table = self.query_one(name, KeyedTable)
            table.columns_are(names)
            table.put(
                [(t["id"], _cells(t, t.get("usage") or trials.get(t["id"]) or {}, names, kept, room)) for t in rows]
            )
        said = "Trials, the latest first: highest / mean" if trials else "No trial was measured yet"
        self.query_one("#kept-title", Static).update(Text(said, "title"))
        live = self.query_one("#live", KeyedTable)
        live.styles.height = min(9, 1 + len(s.running))
        live.display = bool(s.running)
        title = self.query_one("#live-title", Static)
        title.update(Text("Running now" if s.running else "No trial runs now", "title"))

    def _ended(self, s: Snapshot, trials: Mapping[str, Any]) -> list[Row]:
        rows = {t["id"]: t for t in s.trials}
        return [rows[key] for key in trials if key in rows and rows[key]["state"] != "RUNNING"]

    def _machine(self, wide: bool) -> Text:
        if self.found is None:
            return Text(printable(self.why) or "reading …", "faint")
        m, bar = self.found, BAR if wide else 8
        text = Text()
        cpu = "– " if m["cpu"] is None else f"{m['cpu']:.0f} %"
        _line(text, "CPU", None if m["cpu"] is None else m["cpu"] / 100, bar,
              f"{cpu} of {m['cores']} cores, load {m['load']:.1f}")  # fmt: skip
        used = f"{format_bytes(m['memory'])} of {format_bytes(m['memory_total'])}"
        _line(text, "memory", m["memory"] / m["memory_total"], bar, used)
        free = f"{format_bytes(m['disk_free'])} free of {format_bytes(m['disk_total'])}"
        _line(text, "disk", m["disk"] / m["disk_total"], bar, free)
        text.append(f"{'study':<9}", "bold").append(f"{_parts(m['parts'])}\n")
        for gpu in m["gpus"]:
            _line(text, f"GPU {gpu['name']}", None if gpu["use"] is None else gpu["use"] / 100, bar, _gpu(gpu))
        if not m["gpus"]:
            text.append(f"no GPU here ({m['no_gpu']})\n", "faint")
        return text


def _line(text: Text, name: str, share: float | None, width: int, told: str) -> None:
    text.append(f"{name:<8} ", "bold")
    text.append("·" * width if share is None else meter(min(1.0, share), width), "faint" if share is None else "")
    text.append(f" {told}\n")


def _parts(parts: Mapping[str, int] | None) -> str:
    if parts is None:
        return "its folder is being counted"
    large = sorted(((size, name) for name, size in parts.items() if size), reverse=True)[:4]
    told = ", ".join(f"{name} {format_bytes(size)}" for size, name in large)
    return format_bytes(sum(parts.values())) + (f": {told}" if told else "")


def _gpu(gpu: Row) -> str:
    said = ["– %" if gpu["use"] is None else f"{gpu['use']:.0f} %"]
    if gpu["memory"] is not None:
        said.append(f"{format_bytes(gpu['memory'])} of {format_bytes(gpu['total'])}")
    said += [] if gpu["power"] is None else [f"{gpu['power']:.0f} W"]
    said += [] if gpu["temperature"] is None else [f"{gpu['temperature']:.0f} °C"]
    return ", ".join(said) + (f"  {printable(gpu['model'])}" if gpu["model"] else "")


def _cells(t: Row, usage: Mapping[str, Any], names: list[str], kept: bool, room: int) -> tuple[Any, ...]:
    """A trial's row. usage: measure → its latest value, or its peak and mean."""
    plain = {
        "pool": cut(printable(t["label"]), room), "seed": str(t["seed"]), "device": t.get("device") or "–",
        "state": STATES.get(t.get("state", ""), (str(t.get("state", "")).lower(), ""))[0],
    }  # fmt: skip
    taken = {n: measured(m, usage.get(m), kept) for n, m in MEASURES.items()}
    return tuple(plain[n] if n in plain else Text(taken[n], justify="right") for n in names)
