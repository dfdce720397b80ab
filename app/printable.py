"""Text from datasets, studies and recipes may hold terminal escape sequences; none reaches the terminal."""

from __future__ import annotations

import unicodedata

import typer


def printable(text: str) -> str:
    """The text with control and direction-changing characters written out; line breaks and tabs stay."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else c.encode("unicode_escape").decode()
        for c in text
    )


def say(text: str, err: bool = False) -> None:
    """Print a line, to standard error on request."""
    typer.echo(printable(text), err=err)
