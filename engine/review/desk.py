"""A person's suggestion or edited version of a proposal, put to the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.base.errors import DjsbError, StudyError
from engine.base.ids import json_text
from engine.base.problems import explain
from engine.journal import pools, proposals
from engine.records.proposal import StoredProposal
from engine.runner.accounts import Accounts
from engine.study.designed import as_designed
from engine.study.opened import OpenStudy, open_study
from engine.study.variants import current

CHANGES = {"pools", "seeds", "control_seeds", "reason"}  # what of a procedure's proposal a person may change


def opened_study(folder: Path) -> tuple[OpenStudy, Accounts]:
    """A study that was looked at before, with its data, and its accounts."""
    opened = current(as_designed(open_study(folder)))
    if not pools.are_cut(opened.store, opened.setup):
        raise StudyError(f"no pool was cut yet in {folder}; run djsb pools {folder} or djsb auto {folder} first")
    return opened, Accounts(opened, opened.limit)


def queue_suggestion(opened: OpenStudy, accounts: Accounts, content: Any, parent: str | None = None) -> str:
    """Queue a person's suggestion; its id. Raises: StudyError with what is wrong in it."""
    from pydantic import ValidationError

    from engine.proposals.kinds.registry import read_suggestion
    from engine.proposals.suggest import suggest

    try:
        suggestion = read_suggestion(content)
    except (ValidationError, TypeError) as error:
        told = explain(error) if isinstance(error, ValidationError) else str(error)
        raise StudyError(f"the proposal is not valid: {told}; see docs/guides/agent.md for the fields") from None
    return suggest(opened, suggestion, "person", accounts, parent)[0]


def suggest(folder: Path, content: Any) -> str:
    """Queue a person's suggestion; its id and what the gate said. Raises: StudyError with what is wrong in it."""
    opened, accounts = opened_study(folder)
    with opened.store:
        stored = _stored(opened, queue_suggestion(opened, accounts, content))
    return f"{stored.id} is {stored.status}: {stored.gate}"


def _stored(opened: OpenStudy, key: str) -> StoredProposal:
    stored = proposals.get(opened.store, key)
    if stored is None:
        raise StudyError(f"there is no proposal {key}")
    return stored


def replace_by(folder: Path, old: str, edited: Any, who: str, approve: bool, why: str) -> str:
    """Put an edited version in a proposal's place; it passes the gate like any other, and waits unless approved here.

    who: who decides, as the record names them. Returns its id.
    Raises: StudyError when the gate refuses the edited version; the proposal then waits as before.
    """
    from engine.review.decisions import decide

    opened, accounts = opened_study(folder)
    with opened.store:
        suggested = _stored(opened, old).content.get("suggestion") is not None
        submit = queue_suggestion if suggested else _submit_edited
        new = submit(opened, accounts, edited, old)
        stored = _stored(opened, new)
        if new == old or stored.status not in proposals.OPEN:
            what = "changes nothing" if new == old else f"is {stored.status}: {stored.gate}"
            raise StudyError(f"the edited version {what}; {old} waits as before")
        decide(opened, old, "edit", who, f"{why or 'no reason given'}; in its place: {new}")
        if approve:
            decide(opened, new, "approve", who, why or "edited and approved")
    return new


def _submit_edited(opened: OpenStudy, accounts: Accounts, edited: Any, old: str) -> str:
    """Queue a procedure's proposal with other pools, seeds or reason."""
    from pydantic import ValidationError

    from engine.proposals.queue import stored_id, submit
    from engine.records.proposal import Proposal

    if not isinstance(edited, dict) or set(edited) - CHANGES:
        raise StudyError(f"the edited version may have {', '.join(sorted(CHANGES))} only; djsb show ID prints them")
    kept = _stored(opened, old).proposal.model_dump(mode="json")
    try:
        proposal = Proposal.model_validate_json(json_text({**kept, **edited, "origin": "person", "parent": old}))
    except (ValidationError, DjsbError, TypeError) as error:
        told = explain(error) if isinstance(error, ValidationError) else str(error)
        raise StudyError(f"the edited version is not valid: {told}; {old} waits as before") from None
    if (new := stored_id(opened, proposal)) != old:
        submit(opened, proposal, accounts)
    return new
