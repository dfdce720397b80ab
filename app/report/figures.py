"""The canvas of the report's figures: palette, text, and saving one drawing as PNG and as inline SVG.

A figure is drawn once, in the light palette. The PNG keeps those colours on white; in the SVG each of
them becomes a CSS variable of the page, so that light and dark readers see the same drawing.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# name of the CSS variable → colour in light and in dark; light ones are unique, they are what the SVG is searched for
PALETTE = {
    "ink": ("#1c2128", "#e6e9ec"),
    "muted": ("#59636e", "#9aa5b1"),
    "grid": ("#dde1e6", "#343b44"),
    "paper": ("#fefefe", "#15181c"),
    "helps": ("#1f62ad", "#79b8f4"),
    "hurts": ("#ad4a05", "#f0a661"),
    "helps-fill": ("#5c9ddb", "#2c6aa6"),
    "hurts-fill": ("#e2904a", "#a1571c"),
    "stage-1": ("#9097a1", "#7d8691"),
    "stage-2": ("#3f7fbf", "#5d9bd6"),
    "stage-3": ("#2f9a8a", "#48b3a2"),
    "stage-4": ("#d9a036", "#d3a347"),
    "stage-5": ("#7f6fbf", "#a396dd"),
    "stage-6": ("#a35a93", "#c07db1"),
}
INK, MUTED, GRID, PAPER = (PALETTE[n][0] for n in ("ink", "muted", "grid", "paper"))
HELPS, HURTS, HELPS_FILL, HURTS_FILL = (PALETTE[n][0] for n in ("helps", "hurts", "helps-fill", "hurts-fill"))
STAGES = tuple(PALETTE[f"stage-{i}"][0] for i in range(1, 7))
TONES = {"helps": HELPS, "hurts": HURTS}
MARKERS = {"helps": "^", "hurts": "v", "unclear": "o"}
SYMBOLS = {"helps": "▲", "hurts": "▼", "unclear": "·", "degenerate": "×"}
WIDTH = 10.1  # inches, the width of the page's text
SMALL, TEXT = 8.0, 9.0  # points
DOT, SEED_DOT = 5.5, 4.0  # points, marker sizes
WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
RC = {
    "axes.axisbelow": True, "axes.edgecolor": GRID, "axes.facecolor": "none", "axes.labelcolor": MUTED,
    "axes.labelsize": TEXT, "axes.linewidth": 0.8, "axes.spines.right": False, "axes.spines.top": False,
    "axes.titlecolor": INK, "axes.titlelocation": "left", "axes.titlesize": 10.0, "axes.unicode_minus": True,
    "figure.facecolor": "none", "font.family": ["DejaVu Sans"], "font.size": TEXT, "grid.color": GRID,
    "grid.linewidth": 0.7, "legend.fontsize": SMALL, "legend.frameon": False, "legend.labelcolor": INK,
    "svg.fonttype": "none", "svg.hashsalt": "djsb", "text.color": INK, "text.parse_math": False,
    "xtick.color": GRID, "xtick.labelcolor": MUTED, "xtick.labelsize": SMALL,
    "ytick.color": GRID, "ytick.labelcolor": MUTED, "ytick.labelsize": SMALL,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure as it goes into the page. svg: one `<svg>` element. width: of the drawing, CSS pixels."""

    name: str
    alt: str
    svg: str
    png: bytes
    width: int

    def _repr_png_(self) -> bytes:
        """As notebooks show it."""
        return self.png


def picture(name: str, alt: str, draw: Callable[[], Figure]) -> Picture:
    """Draw and save; equal input gives equal bytes.

    name: of the file and of the ids inside the SVG. alt: what a screen reader says.
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, RC | {"font.family": ["DejaVu Sans", *_wide_fonts()]}))
        # a letter that no font here has is a box in the PNG; in the SVG the reader's own fonts show it
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw()
        svg, png = io.StringIO(), io.BytesIO()
        box = figure.get_tightbbox()  # nothing is cut, whatever the labels
        figure.savefig(svg, format="svg", bbox_inches=box.padded(0.06), metadata={"Date": None})
        figure.savefig(
            png, format="png", bbox_inches=box.padded(0.15), dpi=160, facecolor="white", metadata={"Software": None}
        )
    text, width = _inline(svg.getvalue(), name)
    return Picture(name, alt, text, png.getvalue(), width)


def _wide_fonts() -> list[str]:
    """Installed fonts for letters that matplotlib's own font lacks."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [name for name in WIDE_FONTS if name in installed]


def _inline(svg: str, name: str) -> tuple[str, int]:
    """The `<svg>` element for a page that holds several: own ids, the page's colours, no size of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt" ', svg)
    assert size is not None
    svg = svg.replace(size[0], "", 1).replace("<svg ", '<svg aria-hidden="true" ', 1)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r'\bid="([\w.:-]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    variables = {light: f"var(--{variable})" for variable, (light, _) in PALETTE.items()}
    colour = re.compile(r"(?<=: )(" + "|".join(variables) + r")\b")
    svg = re.sub(r'style="[^"]*"', lambda style: colour.sub(lambda c: variables[c[1]], style[0]), svg)
    return re.sub(r"\n\s*", "\n", svg).strip(), round(float(size[1]) * 4 / 3)


def percent(value: float | None, unit: str = "\u00a0%") -> str:
    """`+12.3 %` with a real minus; a dash when there is none."""
    return "–" if value is None else f"{round(value, 1) + 0.0:+.1f}{unit}".replace("-", "\u2212")


def share(part: float, digits: int = 0) -> str:
    """`95 %` of 0.95."""
    return f"{100 * part:.{digits}f}\u00a0%"


def interval(low: float | None, high: float | None) -> str:
    """`[+1.2, +3.4]`, percent; a dash when there is none."""
    return "–" if low is None or high is None else f"[{percent(low, '')},\u00a0{percent(high, '')}]"


def clean(text: str) -> str:
    """One line without control or invisible characters."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join(kept.split())


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Cleaned text over at most a few lines."""
    return "\n".join(textwrap.wrap(clean(text), width, max_lines=lines, placeholder=" …")) or "–"


def inches(texts: Sequence[str], size: float = TEXT) -> float:
    """Width of the widest line of the texts."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=["DejaVu Sans"], size=size)
    lines = [line for text in texts for line in text.split("\n")]
    lines = ["".join("W" if unicodedata.east_asian_width(c) in "WF" else c for c in line) for line in lines]
    found = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines]
    return max(found, default=0.0) / 72


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions as near to the wanted ones as a gap between neighbours allows; in the order given."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(200):
        moved = False
        for i in range(len(placed) - 1):
            short = gap - (placed[i + 1] - placed[i])
            if short > 1e-9:
                placed[i] -= short / 2
                placed[i + 1] += short / 2
                moved = True
        if not moved:
            break
    found = [0.0] * len(wanted)
    for at, i in zip(placed, order, strict=True):
        found[i] = at
    return found


def sheet(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the lower left corner."""
    total_width, total_height = (float(x) for x in figure.get_size_inches())
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def bare(axes: Axes) -> None:
    """No frame and no ticks, for drawings that are not plots."""
    axes.set_axis_off()


BY_ROW = ("axes fraction", "data")


def write(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], by: Any, **style: Any) -> None:
    """Text near a place. shift: points from it; by: the coordinates of the place, as matplotlib names them."""
    axes.annotate(text, at, xycoords=by, xytext=shift, textcoords="offset points", **style)


def zero_line(axes: Axes, vertical: bool) -> None:
    """The control."""
    (axes.axvline if vertical else axes.axhline)(0, color=MUTED, linewidth=1.0, zorder=1.5)


def tint(axes: Axes, x: float, y: float, width: float, height: float, strength: float) -> None:
    """A cell in the colour of the sign; strength in -1 … 1."""
    from matplotlib.patches import Rectangle

    if not math.isfinite(strength):
        return
    colour = HELPS_FILL if strength > 0 else HURTS_FILL
    alpha = min(0.9, 0.9 * abs(strength))
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="none", linewidth=0, alpha=alpha))
