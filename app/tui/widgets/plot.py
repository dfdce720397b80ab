"""Curves over each other with small margins; imported where it is drawn, as NumPy and the plot take their time."""

from __future__ import annotations

from collections.abc import Sequence

from textual_plot import HiResMode, PlotWidget

from app.tui.preferences.themes import CURVES

MODES = (HiResMode.BRAILLE, HiResMode.QUADRANT, HiResMode.HALFBLOCK)  # one after the other when the colours begin anew
SIGNS = ("⠤", "▚", "▀")


class Plot(PlotWidget):
    """Axes without labels: the line above it says what is drawn."""

    def on_mount(self) -> None:
        """Leave the room to the curves."""
        self.margin_top, self.margin_bottom, self.margin_left = 0, 1, 7

    def line(self, points: Sequence[tuple[float, float]], number: int = 0, marked: bool = False) -> tuple[str, str]:
        """Draw the number-th curve, in its colour; the sign and the named style that tell it in a legend."""
        name, turn = f"curve{number % CURVES}", number // CURVES % len(MODES)
        if points:
            style = str(self.app.console.get_style(name))
            x, y = zip(*points, strict=True)
            self.plot(x, y, line_style=style, hires_mode=MODES[turn])
            if marked:
                self.scatter(x, y, marker="●■▲"[number % 3], marker_style=style)
        return SIGNS[turn], name

    def fit(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Limits that hold all of it, with some room at the edges."""
        if x and y:
            wide, high = max(x) - min(x) or abs(x[0]) or 1.0, max(y) - min(y) or abs(y[0]) or 1.0
            self.set_xlimits(min(x) - 0.02 * wide, max(x) + 0.02 * wide)
            self.set_ylimits(min(y) - 0.08 * high, max(y) + 0.08 * high)
