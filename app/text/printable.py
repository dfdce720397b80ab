"""Text from datasets, studies and recipes may hold terminal escape sequences; none reaches the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from engine.base.ids import json_text


def printable(text: str) -> str:
    """The text with control and direction-changing characters written out; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else c.encode("unicode_escape").decode()
        for c in text
    )


def one_line(text: str) -> str:
    """Printable, without line breaks: it cannot look like a line of its own."""
    return printable(" ".join(text.split()))


def say(text: str, err: bool = False) -> None:
    """Print a line, to standard error on request."""
    import typer  # the terminal UI writes no lines, and its reader is short of memory

    typer.echo(printable(text), err=err)


def terminal_width() -> int | None:
    """Characters of a line; None where output goes to no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say_table(rows: list[list[str]], head: Sequence[str], spared: Sequence[str] = ()) -> None:
    """Left-aligned columns; nothing is cut, so that it can be piped. spared: left out one by one where a terminal is
    too narrow.
    """
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    room, shown = terminal_width(), list(range(len(head)))
    for name in spared:
        if room is not None and name in head and sum(widths[i] + 2 for i in shown) - 2 > room:
            shown.remove(list(head).index(name))
    for row in [head, *rows]:
        say("  ".join(str(row[i]).ljust(widths[i]) for i in shown).rstrip())


def say_fields(found: dict[str, Any]) -> None:
    """A field a line, nested ones as YAML."""
    import yaml

    say(yaml.safe_dump(json.loads(json_text(found)), sort_keys=False, allow_unicode=True).rstrip())
