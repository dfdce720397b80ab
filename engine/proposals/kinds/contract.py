"""The contract of a kind of experiment: what its file gives to the gate, the queue, the form and the docs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.base.errors import DjsbError
from engine.evidence.ranking import Ranked
from engine.records.experiment import Experiment
from engine.records.pool import Slice
from engine.records.proposal import Arm, Proposal
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy


class Refused(DjsbError):
    """A suggestion that cannot be a proposal; the text is the reason."""


@dataclass(frozen=True)
class Draft:
    """What an experiment comes to: every arm at every seed. init: the trial whose checkpoint a cycle starts from."""

    stage: str
    arms: Sequence[Arm] = ()
    seeds: Sequence[int] = ()
    init: str | None = None


@dataclass(frozen=True)
class FormField:
    """A field of the form. holds: text, number, yaml, lines, pool, slice, slices, or the names to choose from."""

    name: str
    holds: str | tuple[str, ...]
    hint: str = ""


class Procedure(Protocol):
    """What the paper's procedure asks for now."""

    def combinations(self) -> set[frozenset[Slice]]:
        """The lattice of the best slices."""
        ...

    def recipes(self) -> set[tuple[Slice, ...]]:
        """The recipes that it scales."""
        ...


def no_procedure(_opened: OpenStudy, proposal: Proposal, _procedure: Procedure) -> str | None:
    """The paper's procedure never asks for such a thing."""
    return f"the paper's procedure has no {proposal.kind}"


@dataclass(frozen=True)
class Kind:
    """A kind of experiment.

    schema: what a suggestion says. draft: the arms that it comes to; raises Refused. fields, empty: the form, and what
    stands in a new one. takes, doc: its line in the docs, Markdown. brief: what a language model is told of it.
    always: it asks nothing of a task but to train; else the task's traits name it. check: looks at the text alone,
    before a draft; raises DjsbError. objection: why the paper's procedure would not ask for this, or None. study: where
    its trials run. cost: (device-seconds or None, how many runs are new); None: by its trials.
    """

    schema: type[Experiment]
    draft: Callable[[OpenStudy, Any], Draft]
    fields: tuple[FormField, ...]
    takes: str
    doc: str
    brief: str
    empty: Mapping[str, Any] = field(default_factory=dict)
    always: bool = False
    check: Callable[[OpenStudy, Any], None] = lambda _opened, _experiment: None
    objection: Callable[[OpenStudy, Proposal, Procedure], str | None] = no_procedure
    study: Callable[[OpenStudy, Any], OpenStudy] = lambda opened, _experiment: opened
    cost: Callable[[OpenStudy, Any, Accounts], tuple[float | None, int]] | None = None

    @property
    def name(self) -> str:
        """As `kind:` names it."""
        return self.schema.kind_name()


def effect_of(entry: Ranked) -> str:
    """`+3.1 % over 2 seed(s)`."""
    change = entry.effect.change
    return "no result" if change is None else f"{change:+.1f} % over {entry.effect.seeds} seed(s)"
