"""Kind `prompt`: the cycles' checkpoints caption with other prompts. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

from engine.evidence import prompts as prompting
from engine.evidence.prompts import approved, columns
from engine.journal import cycles
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Prompt
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.study.variants import in_cycles


def draft_prompt(opened: OpenStudy, wanted: Prompt) -> Drafted:
    """Prompts for the checkpoints of all cycles; nothing is trained."""
    if problem := lacking(opened):
        raise Refused(problem)
    if not to_ask(opened, wanted.prompts):
        raise Refused("a repetition: all of these prompts were asked before; djsb show prompts has them")
    return prompting.STAGE, [], ()


def lacking(opened: OpenStudy) -> str | None:
    """Why no checkpoint would be there to be asked, with the remedy, or None."""
    if opened.study.train.keep_checkpoints == 0 and not in_cycles(opened) and not columns(opened):
        return "no checkpoint is kept to ask; set train.keep_checkpoints to 1 or more"
    return None


def to_ask(opened: OpenStudy, prompts: Sequence[str]) -> int:
    """How many times a model would be asked for prompts that were not asked for before: once a cycle."""
    before = {*approved(opened), opened.study.vlm.prompt}
    new = {p for p in prompts if p not in before}
    return len(new) * len(cycles.chain(opened.store, opened.setup))


def seconds(accounts: Accounts) -> float | None:
    """Device-seconds of asking one prompt of one checkpoint, as measured for an evaluation; None: not yet."""
    calibration = accounts.calibration
    return calibration.fixed if calibration else None
