"""The language model and the literature from the command line: chat, papers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from app.text.printable import printable, say
from engine.base.errors import DjsbError, StudyError
from engine.base.ids import json_text
from engine.journal.store import Row
from engine.review.desk import opened_study
from engine.study.file import read_study

if TYPE_CHECKING:
    from agent.chat import Chat


def chat(folder: Path, question: str | None, as_json: bool) -> None:
    """Answer one question, or each line of standard input until it ends."""
    from agent.connection import missing

    opened, accounts = opened_study(folder)
    with opened.store:
        if problem := missing(opened.study.agent):
            raise StudyError(problem)
        from agent.chat import Chat

        talk = Chat(opened, accounts.limit)
        if question is not None:
            found = _answer(talk, question, quiet=as_json)
            if as_json:
                typer.echo(json_text(found, indent=2))
            return
        for line in _questions():
            _answer(talk, line, quiet=False)


@dataclass
class Conversation:
    """Questions about one study, each from whichever thread: the study is opened anew, what was said before is kept.

    stop: true ends the answer that comes.
    """

    folder: Path
    stop: Callable[[], bool] = lambda: False
    messages: list[Any] = field(default_factory=list)

    def missing(self) -> str | None:
        """Why no model can be asked, with the remedy, or None."""
        from agent.connection import missing

        return missing(read_study(self.folder).agent)

    def ask(self, question: str) -> Iterator[str | Row]:
        """The answer in pieces; at the end a row with `answer`, `citations` and `proposals` that were queued.

        Raises: StudyError, ModelError; what was said before stays said.
        """
        opened, accounts = opened_study(self.folder)
        with opened.store:
            from agent.chat import Chat

            talk = Chat(opened, accounts.limit, self.stop, self.messages)
            said: list[str] = []
            try:
                for piece in talk.ask(question):
                    said.append(piece)
                    yield piece
            except DjsbError:
                yield ending(talk, "".join(said), talk.queued)
                raise
            yield ending(talk, "".join(said), talk.queued)


def ending(talk: Chat, answer: str, queued: list[str]) -> Row:
    """An answer with the ids that it cites and the proposals that came of it."""
    from agent.chat import citations

    return {"answer": answer, "citations": citations(talk.opened, answer), "proposals": queued}


def _questions() -> Any:
    """Lines that a person types, without blank ones; an empty file, Ctrl-D or `exit` ends them."""
    here = sys.stdin.isatty()
    if here:
        say("Ask about the study; an empty line is ignored, Ctrl-D or exit leaves.", err=True)
    while True:
        if here:
            typer.echo("› ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line or line.strip() in ("exit", "quit"):
            return
        if line.strip():
            yield line.strip()


def _answer(talk: Any, question: str, quiet: bool) -> Row:
    """Stream one answer, then say what it cites and what it has put into the queue."""
    before, said = len(talk.queued), []
    for piece in talk.ask(question):
        said.append(piece)
        if not quiet:
            typer.echo(printable(piece), nl=False)
            sys.stdout.flush()
    found = ending(talk, "".join(said), talk.queued[before:])
    if not quiet:
        typer.echo("")
        for one in found["citations"]["unknown"]:
            say(f"[{one}] is not in this study", err=True)
        for one in found["proposals"]:
            say(f"queued: {one}; djsb review {one} --dir {talk.opened.folder} decides on it", err=True)
    return found
