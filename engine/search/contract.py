"""Proposers ask for trials; advisers comment on a stage too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.records.proposal import Origin, Proposal
from engine.records.sentence import Sentence
from engine.study.opened import OpenStudy


class Proposer(Protocol):
    """Anything that asks for trials: the paper's procedure, the race, a language model, a person."""

    @property
    def origin(self) -> Origin:
        """Who it is, in the record."""
        ...

    def propose(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """At most n proposals, from what the study has shown so far."""
        ...


class Adviser(Proposer, Protocol):
    """A proposer that the loop asks after each stage, and that may sum the stage up. It decides nothing."""

    def summarise(self, study: OpenStudy, stage: str) -> Sequence[Sentence]:
        """Sentences on what a stage has shown, each with the ids it rests on; none when it has nothing to say."""
        ...
