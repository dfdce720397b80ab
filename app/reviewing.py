"""Proposals from the command line: asking for them, listing them, deciding on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from app.printable import say, say_table
from app.showing import like
from engine.accounts import Accounts
from engine.budget import format_seconds, parse_budget
from engine.cycles import current
from engine.errors import DjsbError, StudyError
from engine.open_study import OpenStudy, open_study, view_study
from engine.store import Row
from engine.study import STAGES, explain


def opened_study(folder: Path) -> tuple[OpenStudy, Accounts]:
    """A study that was looked at before, with its data, and its accounts."""
    opened = current(open_study(folder))
    if opened.store.one("SELECT 1 FROM pool_cuts WHERE context = ?", (opened.context,)) is None:
        raise StudyError(f"no pool was cut yet in {folder}; run djsb pools {folder} or djsb auto {folder} first")
    limit = opened.store.result(opened.context, "budget") or parse_budget(opened.study.budget)
    return opened, Accounts(opened, limit)


# -- propose -----------------------------------------------------------------------------------


def propose(folder: Path, by: str, n: int | None, source: Path | None) -> Row:
    """Ask a proposer and queue what passes the gate. source: a person's own suggestion, as YAML or JSON."""
    opened, accounts = opened_study(folder)
    with opened.store:
        if by == "person":
            found = [_suggest(opened, accounts, _content(source))]
            return {"by": by, "note": "", "proposals": _rows(opened, found)}
        note = ""
        if by == "model":
            from agent.proposer import ModelProposer

            model = ModelProposer(opened.study.agent, accounts.limit)
            if problem := model.missing():
                raise StudyError(problem)
            model.propose(opened, n or opened.study.agent.proposals)
            if model.asked:
                return {"by": by, "note": model.note, "proposals": _rows(opened, model.asked)}
            by, note = "paper", f"{model.note}; the paper's procedure proposes instead"
        return {"by": by, "note": note, "proposals": _rows(opened, _by_procedure(opened, accounts, by, n))}


def _by_procedure(opened: OpenStudy, accounts: Accounts, by: str, n: int | None) -> list[str]:
    """Queue what the paper's procedure or the race asks next: at the first stage where it asks for anything new."""
    from engine.proposal_queue import ended, stored_id, submit
    from engine.search.paper import Paper
    from engine.search.race import Race

    for stage in STAGES:
        proposer = Race(stage) if by == "race" and stage != "confirm" else Paper(stage)
        new = [p for p in proposer.propose(opened) if not ended(opened, p.pools, p.seeds)][:n]
        if new:
            approved: list[str] = []
            for proposal in new:
                submit(opened, proposal, accounts, approved)
                approved.append(stored_id(opened, proposal))
            return approved
    return []


def _suggest(opened: OpenStudy, accounts: Accounts, content: Any, parent: str | None = None) -> str:
    """Queue a person's suggestion; its id. Raises: StudyError with what is wrong in it."""
    from pydantic import ValidationError

    from engine.drafting import suggest
    from engine.experiments import Suggestion

    try:
        suggestion = Suggestion.model_validate_json(json.dumps(content))
    except (ValidationError, TypeError) as error:
        told = explain(error) if isinstance(error, ValidationError) else str(error)
        raise StudyError(f"the proposal is not valid: {told}; see docs/agent.md for the fields") from None
    return suggest(opened, suggestion, "person", accounts, parent)[0]


def _content(source: Path | None) -> Any:
    """A suggestion as people write it, from a file, standard input, or the person's editor."""
    if source is None and sys.stdin.isatty():
        raise StudyError("give the proposal with --from FILE, or on standard input")
    try:
        text = sys.stdin.read() if source is None or str(source) == "-" else source.read_text(encoding="utf-8")
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"the proposal is not YAML ({' '.join(str(error).split())[:200]}); mend it there") from None


def show_propose(found: Row) -> None:
    """As people read it."""
    if found["note"]:
        say(found["note"], err=True)
    if not found["proposals"]:
        say(f"{found['by']} has nothing to propose")
    show_proposals(found["proposals"])


# -- list --------------------------------------------------------------------------------------


def proposals(folder: Path, status: str | None) -> list[Row]:
    """Every proposal of the study, oldest first; of one status if asked."""
    opened = view_study(folder)
    rows = opened.store.query(
        "SELECT id FROM proposals WHERE context = ? AND (? IS NULL OR status = ?) ORDER BY at, id",
        (opened.context, status, status),
    )
    return _rows(opened, [r["id"] for r in rows])


def _rows(opened: OpenStudy, ids: list[str]) -> list[Row]:
    """Proposals as they are listed; reason: why it is asked for, gate: what the gate said."""
    marks = ", ".join("?" * len(ids))
    found = []
    for row in opened.store.query(f"SELECT * FROM proposals WHERE id IN ({marks}) ORDER BY at, id", ids):
        content = json.loads(row["content"])
        decisions = opened.store.query(
            "SELECT verdict, who, why, at FROM decisions WHERE proposal = ? ORDER BY id", (row["id"],)
        )
        found.append(
            {"id": row["id"], "origin": row["origin"], "kind": row["kind"], "stage": row["stage"],
             "status": row["status"], "reason": content["reason"], "gate": content["gate"], "cost": row["cost"],
             "at": row["at"], "decisions": decisions, "content": content}
        )  # fmt: skip
    return found


def show_proposals(found: list[Row]) -> None:
    """As people read it."""
    if found:
        say_table(
            [
                [r["id"], r["origin"], r["kind"], r["status"],
                 "–" if r["cost"] is None else format_seconds(r["cost"]), _one_line(r)]
                for r in found
            ],
            ["id", "origin", "kind", "status", "cost", "reason"],
        )  # fmt: skip


def _one_line(row: Row) -> str:
    text = f"{row['gate']} (asked for: {row['reason']})" if row["status"] == "refused" else row["reason"]
    return " ".join(text.split())


# -- decide ------------------------------------------------------------------------------------


def review(folder: Path, proposal: str | None, every: bool, verdict: str | None, why: str) -> Row:
    """Decide on proposals, or list what waits. verdict: approve, reject or hold."""
    from engine.decisions import decide, waiting_proposals

    opened = view_study(folder)
    waiting = waiting_proposals(opened)
    if verdict is None:
        wanted = [w for w in waiting if not proposal or w.startswith(proposal)]
        return {"decided": [], "waiting": _rows(opened, wanted)}
    chosen = waiting if every else [_one_waiting(waiting, proposal or "")]
    if not chosen:
        raise StudyError("no proposal waits; djsb review lists them")
    for one in chosen:
        decide(opened, one, verdict, person(), why or "no reason given")  # type: ignore[arg-type]
    return {"decided": chosen, "verdict": verdict, "waiting": _rows(opened, waiting_proposals(opened))}


def _one_waiting(waiting: list[str], wanted: str) -> str:
    chosen = [w for w in waiting if w.startswith(wanted)]
    if not chosen:
        raise StudyError(f"no proposal {wanted!r} that waits; djsb review lists them")
    if len(chosen) > 1:
        raise StudyError(f"{wanted!r} is the beginning of several: {', '.join(chosen)}; give more of it")
    return chosen[0]


def edit(folder: Path, proposal: str, source: Path | None, approve: bool, why: str) -> Row:
    """Put an edited version in a proposal's place.

    source: file with the edited version; `-`: standard input; None: the person's editor.
    """
    from engine.decisions import waiting_proposals

    opened = view_study(folder)
    old = _one_waiting(waiting_proposals(opened), proposal)
    (row,) = _rows(opened, [old])
    before = row["content"].get("suggestion") or _bare(row["content"])
    new = replace_by(folder, old, _from_editor(before) if source is None else _content(source), approve, why)
    return {"decided": [old], "verdict": "edit", "edited": new, "waiting": _rows(opened, waiting_proposals(opened))}


def suggest(folder: Path, content: Any) -> str:
    """Queue a person's suggestion; its id and what the gate said. Raises: StudyError with what is wrong in it."""
    opened, accounts = opened_study(folder)
    with opened.store:
        (row,) = _rows(opened, [_suggest(opened, accounts, content)])
    return f"{row['id']} is {row['status']}: {row['gate']}"


def replace_by(folder: Path, old: str, edited: Any, approve: bool, why: str) -> str:
    """Put an edited version in a proposal's place; it passes the gate like any other, and waits unless approved here.

    Its id. Raises: StudyError when the gate refuses the edited version; the proposal then waits as before.
    """
    from engine.decisions import decide

    opened, accounts = opened_study(folder)
    with opened.store:
        (row,) = _rows(opened, [old])
        suggested = row["content"].get("suggestion") is not None
        new = _suggest(opened, accounts, edited, old) if suggested else _submit_edited(opened, accounts, edited, old)
        (now,) = _rows(opened, [new])
        if new == old or now["status"] not in ("queued", "held"):
            what = "changes nothing" if new == old else f"is {now['status']}: {now['gate']}"
            raise StudyError(f"the edited version {what}; {old} waits as before")
        decide(opened, old, "edit", person(), f"{why or 'no reason given'}; in its place: {new}")
        if approve:
            decide(opened, new, "approve", person(), why or "edited and approved")
    return new


def _bare(content: Row) -> Row:
    """What of a procedure's proposal a person may change."""
    return {key: content[key] for key in ("pools", "seeds", "reason")}


def _submit_edited(opened: OpenStudy, accounts: Accounts, edited: Any, old: str) -> str:
    """Queue a procedure's proposal with other pools, seeds or reason."""
    from pydantic import ValidationError

    from engine.proposal_queue import stored_id, submit
    from engine.proposals import Proposal, stored_proposal

    row = opened.store.one("SELECT * FROM proposals WHERE id = ?", (old,))
    if row is None or not isinstance(edited, dict) or set(edited) - {"pools", "seeds", "reason"}:
        raise StudyError("the edited version may have pools, seeds and reason only; djsb show ID prints them")
    kept = stored_proposal(row).model_dump(mode="json")
    try:
        proposal = Proposal.model_validate_json(json.dumps({**kept, **edited, "origin": "person", "parent": old}))
    except (ValidationError, DjsbError, TypeError) as error:
        told = explain(error) if isinstance(error, ValidationError) else str(error)
        raise StudyError(f"the edited version is not valid: {told}; {old} waits as before") from None
    if (new := stored_id(opened, proposal)) != old:
        submit(opened, proposal, accounts)
    return new


def _from_editor(content: Row) -> Any:
    """What the person leaves in the editor."""
    import click

    if not sys.stdin.isatty():
        return _content(None)
    text = click.edit(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), extension=".yaml")
    if text is None:
        raise StudyError("the editor was left without saving; nothing was decided")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is none of
        raise StudyError(f"the edited version is not YAML: {' '.join(str(error).split())[:200]}") from None


def show_review(found: Row) -> None:
    """As people read it."""
    for one in found["decided"]:
        say(f"{found['verdict']}  {one}" + (f"  → {found['edited']}" if "edited" in found else ""))
    if not found["decided"]:
        show_proposals(found["waiting"])
        if not found["waiting"]:
            say("nothing awaits a decision")


def readmit(folder: Path, pool: str, why: str) -> Row:
    """Undo the race's drop of a pool."""
    from engine.search.race import readmit as undo

    opened = view_study(folder)
    dropped = opened.store.query(
        "SELECT pool, stage, reason FROM drops WHERE context = ? AND undone IS NULL AND pool LIKE ? ESCAPE '!'",
        (opened.context, like(pool)),
    )
    if not dropped:
        raise StudyError(f"the race has dropped no pool {pool!r}; djsb rank names those that it has")
    if len({d["pool"] for d in dropped}) > 1:
        raise StudyError(f"{pool!r} is the beginning of several: {', '.join(d['pool'] for d in dropped)}; give more")
    undo(opened, dropped[0]["pool"], person(), why or "no reason given")
    return {"readmitted": dropped[0]["pool"], "was": [d["reason"] for d in dropped]}


def show_readmit(found: Row) -> None:
    """As people read it."""
    say(f"readmitted  {found['readmitted']}  (was dropped: {'; '.join(found['was'])}); djsb auto goes on with it")


def person() -> str:
    """Who decides, as the record names them."""
    import getpass
    import os

    try:
        return f"person {getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"person {os.getuid()}"
