"""The study's answer as a terminal shows it: the sentence that counts, then what it rests on."""

from __future__ import annotations

from app.text.printable import one_line, say
from engine.journal.store import Row


def show_answer(found: Row) -> None:
    """found: the field `answer` of commands."""
    say(one_line(found["text"]))
    for line in [*found["reasons"], *([found["remedy"]] if found["remedy"] else [])]:
        say(f"  {one_line(line)}")
    say("")
