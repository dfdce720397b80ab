"""Kind `prompt`: the cycles' checkpoints caption with other prompts. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from engine.evidence.prompts import STAGE, PromptTable, columns, prompt_table
from engine.journal import cycles, proposals
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused, Work
from engine.records.experiment import Experiment
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.study.variants import in_cycles
from engine.study.view import StudyView
from engine.tasks.contract import Asking, Task


class Prompt(Experiment):
    """Caption prompts, for a task that captions (Appendix E.12)."""

    place = 60
    trains = False
    kind: Literal["prompt"]
    prompts: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(min_length=1, max_length=16)


class PromptKind(Kind[Prompt]):
    """Other prompts for trained checkpoints."""

    schema = Prompt
    form = (FormField("prompts", "lines", "one a line"),)
    fields = "`prompts`: 1 to 16"
    asks = (
        "caption prompts on each cycle's checkpoint, without training; task `caption` only ([mappers.md](mappers.md))"
    )
    brief = "1 to 16 new prompts that ask the trained checkpoints for captions; nothing is trained."

    def fits(self, task: Task) -> bool:
        """A task whose models answer a prompt."""
        return isinstance(task, Asking)

    def draft(self, opened: OpenStudy, experiment: Prompt) -> Drafted:
        """Prompts for the checkpoints of all cycles; nothing is trained."""
        if problem := lacking(opened):
            raise Refused(problem)
        if not to_ask(opened, experiment.prompts):
            raise Refused("a repetition: all of these prompts were asked before; djsb show prompts has them")
        return Drafted(STAGE)

    def work(self, opened: OpenStudy, experiment: Prompt, accounts: Accounts) -> Work:
        """Each new prompt is asked of each cycle's checkpoint."""
        return Work(to_ask(opened, experiment.prompts), seconds(accounts))

    def names(self, experiment: Prompt) -> tuple[str, ...]:
        """The prompts."""
        return experiment.prompts


KINDS = (PromptKind(),)


def approved(view: StudyView) -> list[str]:
    """The prompts of all approved proposals of the study's cycles, each once, oldest first."""
    rows = proposals.approved_of_kind(view.store, view.root, "prompt")
    experiments = [s.experiment for row in rows if (s := row.proposal.suggestion)]
    return list(dict.fromkeys(p for e in experiments if isinstance(e, Prompt) for p in e.prompts))


def table(view: StudyView) -> PromptTable | None:
    """The study's own prompt and the approved ones on every checkpoint; None without answers."""
    return prompt_table(view, approved(view))


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
