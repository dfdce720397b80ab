"""`djsb propose`: a suggestion, or the next round of a procedure, put in the queue."""

from __future__ import annotations

from pathlib import Path

from app.commands.proposals import show_proposals
from app.text.printable import say
from app.text.suggestion_file import read_suggestion
from engine.base.errors import StudyError
from engine.journal.store import Row
from engine.proposals.queue import proposal_rows
from engine.review.desk import opened_study, queue_suggestion
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy


def propose(folder: Path, by: str, n: int | None, source: Path | None) -> Row:
    """Ask a proposer and queue what passes the gate. source: a person's own suggestion, or a list."""
    opened, accounts = opened_study(folder)
    with opened.store:
        if by == "person":
            content = read_suggestion(source)
            listed = content if isinstance(content, list) and content else [content]
            found = [queue_suggestion(opened, accounts, one) for one in listed]
            return {"by": by, "note": "", "proposals": proposal_rows(opened, found)}
        if by == "model":
            return _by_model(opened, accounts, n)
        return {"by": by, "note": "", "proposals": proposal_rows(opened, _by_procedure(opened, accounts, by, n))}


def _by_model(opened: OpenStudy, accounts: Accounts, n: int | None) -> Row:
    """What a language model asks for. Raises: StudyError, ModelError; where it fails, nobody proposes in its place."""
    from agent.failures import ModelError, told
    from agent.proposer import ModelProposer

    model = ModelProposer(opened.study.agent, accounts.limit)
    if problem := model.missing():
        raise StudyError(problem)
    try:
        model.request(opened, n)
    except ModelError as error:
        opened.store.event("model", told(error), level="warning")
        if not model.asked:
            raise
        model.note = told(error)  # what it asked for before stays
    return {"by": "model", "note": model.note, "proposals": proposal_rows(opened, model.asked)}


def _by_procedure(opened: OpenStudy, accounts: Accounts, by: str, n: int | None) -> list[str]:
    """Queue what a strategy asks next: at the first stage where it asks for anything new."""
    from engine.proposals.arms import has_run
    from engine.proposals.queue import stored_id, submit
    from engine.search.strategies import named

    for stage in opened.study.stages:
        proposer = named(by, stage)
        new = [p for p in proposer.propose(opened) if not has_run(opened, p)][:n]
        if new:
            approved: list[str] = []
            for proposal in new:
                submit(opened, proposal, accounts, approved)
                approved.append(stored_id(opened, proposal))
            return approved
    return []


def show_propose(found: Row) -> None:
    """As people read it."""
    if found["note"]:
        say(found["note"], err=True)
    if not found["proposals"]:
        say(f"{found['by']} has nothing to propose")
    show_proposals(found["proposals"])
