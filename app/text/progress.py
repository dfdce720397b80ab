"""Progress on standard error: bars with the time that is left, or plain lines when it is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from app.text.printable import printable, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY = 15.0  # seconds between plain lines of one task


class Display:
    """Shows named tasks with their progress while the block runs."""

    def __init__(self) -> None:
        self._bars = _bars() if sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Display:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def notice(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show that `done` of `total` parts of `what` are finished."""
        text = f"{what}  {detail}" if detail else what
        if self._bars:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(text, total=total)
            self._bars.update(self._tasks[what], completed=done, total=total, description=text)
            return
        now = time.monotonic()
        if done >= total or now - self._last.get(what, -LINE_EVERY) >= LINE_EVERY:
            if self._last.get(what) == float("inf"):
                return
            print(f"{text}: {done}/{total}", file=sys.stderr, flush=True)
            self._last[what] = float("inf") if done >= total else now

    def line(self, text: str) -> None:
        """One line above the bars."""
        if self._bars:
            self._bars.console.print(printable(text), highlight=False, markup=False)
        else:
            say(text, err=True)


def _bars() -> Progress:
    """The bars of a terminal."""
    from rich import progress as bars  # start-up time: plain lines do without
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    return bars.Progress(*columns, console=Console(stderr=True), transient=False)
