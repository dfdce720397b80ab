"""`djsb review`: approve, reject, hold or edit a proposal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from app.commands.proposals import show_proposals
from app.person import person
from app.text.printable import one_line, say
from app.text.suggestion_file import read_suggestion
from engine.base.errors import StudyError
from engine.base.ids import by_beginning
from engine.base.yaml_text import parse_yaml
from engine.journal.store import Row
from engine.proposals.queue import proposal_rows
from engine.review.desk import replace_by
from engine.study.view import view_study


def review(folder: Path, proposal: str | None, every: bool, verdict: str | None, why: str) -> Row:
    """Decide on proposals, or list what waits. verdict: approve, reject or hold."""
    from engine.evidence.elsewhere import elsewhere
    from engine.review.decisions import decide, waiting_proposals

    opened = view_study(folder)
    waiting = waiting_proposals(opened)
    if verdict is None:
        wanted = [w for w in waiting if not proposal or w.startswith(proposal)]
        return {
            "decided": [], "waiting": proposal_rows(opened, wanted),
            "elsewhere": [f.to_json() for f in elsewhere(opened)] if wanted else [],
        }  # fmt: skip
    chosen = waiting if every else [_one_waiting(waiting, proposal or "")]
    if not chosen:
        raise StudyError("no proposal waits; djsb review lists them")
    for one in chosen:
        decide(opened, one, verdict, person(), why or "no reason given")  # type: ignore[arg-type]
    return {"decided": chosen, "verdict": verdict, "waiting": proposal_rows(opened, waiting_proposals(opened))}


def _one_waiting(waiting: list[str], start: str) -> str:
    return by_beginning(waiting, start, f"no proposal {start!r} that waits; djsb review lists them")


def edit(folder: Path, proposal: str, source: Path | None, approve: bool, why: str) -> Row:
    """Put an edited version in a proposal's place.

    source: file with the edited version; `-`: standard input; None: the person's editor.
    """
    from engine.review.decisions import waiting_proposals

    opened = view_study(folder)
    old = _one_waiting(waiting_proposals(opened), proposal)
    (row,) = proposal_rows(opened, [old])
    before = row["content"].get("suggestion") or _bare(row["content"])
    edited = _from_editor(before) if source is None else read_suggestion(source)
    new = replace_by(folder, old, edited, person(), approve, why)
    return {
        "decided": [old],
        "verdict": "edit",
        "edited": new,
        "waiting": proposal_rows(opened, waiting_proposals(opened)),
    }


def _bare(content: Row) -> Row:
    """What of a procedure's proposal a person may change."""
    return {key: content[key] for key in ("pools", "seeds", "control_seeds", "reason") if key in content}


def _from_editor(content: Row) -> Any:
    """What the person leaves in the editor."""
    import click

    if not sys.stdin.isatty():
        return read_suggestion(None)
    text = click.edit(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), extension=".yaml")
    if text is None:
        raise StudyError("the editor was left without saving; nothing was decided")
    return parse_yaml(text, "the edited version")


def show_review(found: Row) -> None:
    """As people read it."""
    for one in found["decided"]:
        say(f"{found['verdict']}  {one}" + (f"  → {found['edited']}" if "edited" in found else ""))
    if not found["decided"]:
        show_proposals(found["waiting"])
        for finding in found["elsewhere"]:
            say(one_line(finding["text"]))
        if not found["waiting"]:
            say("nothing awaits a decision")
