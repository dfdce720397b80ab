"""The contract of a kind of experiment. A file of this folder has all of it; no other module names its kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from engine.base.errors import DjsbError
from engine.evidence.ranking import Ranked
from engine.records.experiment import Experiment
from engine.records.proposal import Arm, Proposal
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.tasks.contract import Task

E = TypeVar("E", bound=Experiment)


class Refused(DjsbError):
    """A suggestion that cannot be a proposal; the text is the reason."""


class Drafted(NamedTuple):
    """What an experiment comes to. init: the trial whose checkpoint its trials start from."""

    stage: str
    pools: Sequence[Arm] = ()
    seeds: Sequence[int] = ()
    init: str | None = None


class Work(NamedTuple):
    """Work that is no trial. units: how much of it is new. seconds: of device time for one, None while unknown."""

    units: int
    seconds: float | None


@dataclass(frozen=True)
class FormField:
    """A field of the form. holds: what stands in it. hint: shown while it is empty. start: of a new experiment."""

    name: str
    holds: Literal["slices", "slice", "pool", "number", "text", "yaml", "lines", "choice"] = "text"
    hint: str = ""
    choices: tuple[str, ...] = ()
    start: Any = None


class Kind(Protocol[E]):
    """One kind of experiment. A kind inherits what it does as most do.

    schema: its fields, and by `place` its row in lists. form: its fields for a person. fields, asks: its row in the
    table of docs/guides/agent.md, as Markdown. brief: what a language model is told of it.
    """

    schema: type[E]
    form: tuple[FormField, ...]
    fields: str
    asks: str
    brief: str

    def check(self, opened: OpenStudy, experiment: E) -> None:
        """Refuse what no study may run, before anything else is looked at. Raises: DjsbError."""
        return

    def fits(self, task: Task) -> bool:
        """True when the task can run it."""
        return True

    def draft(self, opened: OpenStudy, experiment: E) -> Drafted:
        """Pools, lengths and seeds. Raises: Refused with the reason, in words that one can act on."""
        ...

    def where(self, opened: OpenStudy, experiment: E) -> OpenStudy:
        """The study as its trials see it."""
        return opened

    def work(self, opened: OpenStudy, experiment: E, accounts: Accounts) -> Work | None:
        """What it costs beside trials; None: it costs what its new trials cost."""
        return None

    def names(self, experiment: E) -> Sequence[str]:
        """What it asks for, where that is no pools."""
        return ()

    def objection(self, opened: OpenStudy, proposal: Proposal) -> str | None:
        """Why the paper's procedure would not ask for a proposal of this kind, or None when it would."""
        return f"the paper's procedure has no {proposal.kind}"


def own_pools(proposal: Proposal) -> list[Arm]:
    """The pools of a proposal, its controls aside."""
    return [p for p in proposal.pools if p.kind != "control"]


def effect_of(entry: Ranked) -> str:
    """`+1.2 % over 3 seed(s)`."""
    change = entry.effect.change
    return "no result" if change is None else f"{change:+.1f} % over {entry.effect.seeds} seed(s)"
