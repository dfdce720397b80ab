"""The language model as a proposer: its suggestions pass the gate and wait in the queue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from agent import connection
from agent.briefing import write_briefing
from agent.failures import told
from agent.literature import all_papers
from agent.prompts import prompt
from engine.base.errors import DjsbError
from engine.journal import proposals
from engine.proposals.kinds.registry import briefs
from engine.proposals.suggest import suggest
from engine.records.experiment import Id, Suggestion
from engine.records.proposal import Origin, Proposal
from engine.records.sentence import Sentence
from engine.runner.accounts import Accounts
from engine.settings.running import AgentSection
from engine.study.opened import OpenStudy


class Proposals(BaseModel):
    """The experiments that you propose; an empty list when none is worth its cost."""

    model_config = ConfigDict(extra="forbid")
    proposals: list[Suggestion] = Field(max_length=10)


class Statement(BaseModel):
    """One sentence with the ids of the pools that it rests on."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, max_length=400)
    cites: list[Id] = Field(min_length=1, max_length=12)


class Summary(BaseModel):
    """What the stage has shown."""

    model_config = ConfigDict(extra="forbid")
    sentences: list[Statement] = Field(max_length=5)


@dataclass
class ModelProposer:
    """Asks the study's language model. In the loop a failure is no exception: it becomes an event, and `note`.

    limit: device-seconds of the study's budget. asked: ids of all that it put to the gate in the last round, refused
    ones too.
    """

    settings: AgentSection
    limit: float
    stop: Callable[[], bool] = lambda: False
    note: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def origin(self) -> Origin:
        """Who it is, in the record."""
        return "model"

    def missing(self) -> str | None:
        """Why it cannot be asked, with the remedy, or None."""
        return connection.missing(self.settings)

    def propose(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """As `request`, for the loop, which goes on without it."""
        try:
            return self.request(study, n)
        except DjsbError as error:
            self.note = f"the language model was of no use: {told(error)}"
            study.store.event("model", f"{self.note}; the search goes on alone", level="warning")
            return []

    def request(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """At most n proposals that passed the gate; they are queued, and so are the refused ones with their reasons.

        The model is told why something was refused, and may try again as often as `agent.tries` says.
        Raises: ModelError when it gives no usable answer; what it proposed before stays.
        """
        self.note, self.asked = "", []
        passed = self._propose(study, n or self.settings.proposals)
        if not passed:
            self.note = "nothing that the language model proposed passed the gate" if self.asked else (
                "the language model has nothing to propose"
            )  # fmt: skip
            study.store.event("model", self.note)
        return passed

    def _propose(self, opened: OpenStudy, n: int) -> list[Proposal]:
        from agent.question import Question, bulleted

        question = Question(opened, self.settings, "propose", prompt("propose", kinds=briefs()), Proposals, self.stop)
        accounts, passed = Accounts(opened, self.limit), dict[str, Proposal]()
        text = prompt("briefing", n=n, briefing=write_briefing(opened, self.limit))
        for _ in range(self.settings.tries):
            before = len(question.invalid)
            try:
                reply = question.ask(text)
            finally:
                for problem in question.invalid[before:]:
                    opened.store.event("model", f"an invalid reply: {problem}", level="warning")
            refused = []
            for suggestion in reply.proposals[: n - len(passed)]:
                key, status, reason = self._queue(opened, suggestion, accounts)
                self.asked.append(key)
                if status == "queued":
                    passed[key] = proposals.by_ids(opened.store, [key])[0].proposal
                else:
                    refused.append(f"{suggestion.experiment.model_dump_json()[:300]}: {status}: {reason}")
            if not refused or len(passed) >= n:
                break
            text = prompt("refused", refused=bulleted(refused), n=n - len(passed))
        return list(passed.values())

    def _queue(self, opened: OpenStudy, suggestion: Suggestion, accounts: Accounts) -> tuple[str, str, str]:
        """Put a suggestion to the gate; works that it cites must be on the list."""
        known = {p["id"] for p in all_papers()}
        if unknown := [p for p in suggestion.papers if p not in known]:
            suggestion = suggestion.model_copy(update={"papers": tuple(p for p in suggestion.papers if p in known)})
            opened.store.event("model", f"cites works that are not on the list: {', '.join(unknown)}", level="warning")
        return suggest(opened, suggestion, "model", accounts)

    def summarise(self, study: OpenStudy, stage: str) -> Sequence[Sentence]:
        """A stage in at most five sentences; those whose ids or numbers the briefing does not have are left out."""
        from agent.question import Question

        briefing = write_briefing(study, self.limit, prior=False)  # a summary rests on this study alone
        question = Question(
            study, self.settings, "summarise", prompt("summarise", stage=stage, briefing=briefing), Summary, self.stop
        )
        try:
            reply = question.ask("Write the summary.")
        except DjsbError as error:
            study.store.event("model", f"no summary: {told(error)}; the template's stays", level="warning")
            return []
        kept = [s for s in reply.sentences if grounded(s, briefing)]
        if len(kept) < len(reply.sentences):
            left = len(reply.sentences) - len(kept)
            study.store.event("model", f"{left} sentence(s) of its summary rest on nothing in the briefing", stage)
        return [Sentence(" ".join(s.text.split()), tuple(s.cites), f"model {self.settings.model}") for s in kept]


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def grounded(statement: Statement, briefing: str) -> bool:
    """True when the briefing has every id that a statement cites, and every number in it at the precision given."""
    if not all(i in briefing for i in statement.cites):
        return False
    ids = re.compile("|".join(map(re.escape, statement.cites)))
    known = [float(x) for x in _NUMBER.findall(briefing)]
    for token in _NUMBER.findall(ids.sub("", statement.text)):
        places = len(token.partition(".")[2])
        if not any(round(x, places) == float(token) for x in known):
            return False
    return True
