"""Themes, and the named styles that all texts use: `good`, `bad`, `note`, … have a colour of their own in every theme.

Colour never stands alone: what it says is also said by a glyph, a sign or a word.
"""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme as Styles
from textual.color import Color
from textual.filter import LineFilter, monochrome_style
from textual.theme import Theme

STEPS = 4  # of a heatmap's shades, each way
CURVES = 7  # colours of curves before they begin anew


def _theme(name: str, dark: bool, ground: tuple[str, str, str], text: tuple[str, str], hues: tuple[str, ...]) -> Theme:
    """ground: background, surface, panel. text: plain and faint. hues: blue, violet, amber, red, green."""
    blue, violet, amber, red, green = hues
    background, surface, panel = ground
    return Theme(
        name, primary=blue, secondary=violet, warning=amber, error=red, success=green, accent=amber,
        foreground=text[0], background=background, surface=surface, panel=panel, dark=dark,
        variables={
            "djsb-good": green, "djsb-bad": red, "djsb-warn": amber, "djsb-note": blue, "djsb-faint": text[1],
            "text-muted": text[1], "text-disabled": text[1],
            "block-cursor-background": blue, "block-cursor-foreground": background, "block-cursor-text-style": "bold",
            "block-cursor-blurred-background": panel, "block-cursor-blurred-foreground": text[0],
            "block-cursor-blurred-text-style": "bold",
            "footer-background": panel, "footer-foreground": text[0], "footer-description-foreground": text[0],
            "footer-key-foreground": blue, "border": blue, "border-blurred": text[1],
            "input-cursor-background": text[0], "input-cursor-foreground": background,
            "input-selection-background": f"{blue} 40%", "scrollbar": text[1], "scrollbar-background": panel,
            "button-color-foreground": background, "primary-muted": panel, "secondary-muted": panel,
        },
    )  # fmt: skip


THEMES = (
    _theme(
        "djsb-dark", True, ("#11151c", "#161b24", "#262e3b"), ("#dfe5ee", "#9eabbc"),
        ("#86c1ff", "#c9a7ff", "#ffd07a", "#ff9d96", "#7fe3a6"),
    ),
    _theme(
        "djsb-light", False, ("#ffffff", "#f7f8fa", "#e3e7ed"), ("#1a2130", "#505b6c"),
        ("#0a4aa0", "#5f2ea6", "#714600", "#9d1720", "#0b5c2c"),
    ),
    _theme(
        "djsb-contrast", True, ("#000000", "#000000", "#202020"), ("#ffffff", "#d6d6d6"),
        ("#7fdcff", "#e0b3ff", "#ffe45c", "#ff9a9a", "#5dff96"),
    ),
)  # fmt: skip


def styles(theme: Theme) -> Styles:
    """The named styles in a theme's colours; a theme that is not ours gives its colours for text."""
    variables = {**theme.to_color_system().generate(), **theme.variables}

    def colour(own: str, other: str) -> Color:
        found = Color.parse(variables.get(own) or variables[other])
        return found if found.a == 1 else Color.parse(variables["foreground"])

    ground = Color.parse(variables["surface"])
    text = Color.parse(variables["foreground"])
    good, bad = colour("djsb-good", "text-success"), colour("djsb-bad", "text-error")
    warn, note = colour("djsb-warn", "text-warning"), colour("djsb-note", "text-primary")
    faint = colour("djsb-faint", "foreground")
    named = {
        "good": _style(good, bold=True), "bad": _style(bad, bold=True), "warn": _style(warn, bold=True),
        "note": _style(note), "faint": _style(faint), "title": Style(bold=True),
    }  # fmt: skip
    for number, hue in enumerate((note, warn, good, bad, colour("secondary", "text-secondary"), text, faint)):
        named[f"curve{number}"] = _style(hue)
    for name, pole in (("plus", note), ("minus", warn)):
        for step in range(1, STEPS + 1):
            named[f"{name}{step}"] = _on(ground.blend(pole, step / STEPS * 0.9) if ground.ansi is None else ground)
    return Styles(named, inherit=True)


def _style(colour: Color, bold: bool = False) -> Style:
    return Style(color=colour.rich_color, bold=bold or None)


def _on(ground: Color) -> Style:
    """Black or white, whichever reads better on the ground."""
    fronts = (Color(0, 0, 0), Color(255, 255, 255))
    front = max(fronts, key=lambda f: contrast(f, ground))
    return Style(color=front.rich_color, bgcolor=ground.rich_color)


class Grey(LineFilter):
    """NO_COLOR: shades of grey. Textual's own filter fails on text without a style, of which plots have some."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same line in grey."""
        return [Segment(text, monochrome_style(style) if style else None, None) for text, style, _ in segments]


def contrast(a: Color, b: Color) -> float:
    """WCAG's ratio of two opaque colours, 1 … 21."""
    lights = sorted(0.2126 * _linear(c.r) + 0.7152 * _linear(c.g) + 0.0722 * _linear(c.b) for c in (a, b))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _linear(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)
