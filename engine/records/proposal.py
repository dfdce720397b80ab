"""Proposals and decisions: every trial is asked for by one and allowed by the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.base.errors import damaged
from engine.base.ids import content_id
from engine.records.experiment import Id, Suggestion
from engine.records.pool import Pool, pool_from_json

# paper, race, mixtures, person, model, agent, or the name of a plug-in's strategy
Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Status = Literal["queued", "held", "refused", "approved", "rejected", "edited", "superseded"]


class Arm(BaseModel):
    """A pool to train on and how long.

    samples: rows trained on in total, repeats counted. horizon: samples of the whole learning-rate schedule when
    the trial is only its beginning; None: the trial is all of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    pool: dict[str, Any]
    label: str
    kind: Literal["control", "single", "combination", "repetition", "layers", "mapper", "mixture", "all"]
    samples: int = Field(gt=0)
    horizon: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _begins_its_schedule(self) -> Arm:
        if self.horizon is not None and self.horizon < self.samples:
            raise ValueError(f"horizon {self.horizon} is below the {self.samples} samples to train on")
        return self

    @field_validator("pool")
    @classmethod
    def _is_pool(cls, pool: dict[str, Any]) -> dict[str, Any]:
        try:
            return pool_from_json(pool).to_json()
        except (KeyError, TypeError) as error:
            raise ValueError(f"no pool: {type(error).__name__} {error}") from None

    def to_pool(self) -> Pool:
        """The pool as a value."""
        return pool_from_json(self.pool)

    def part(self, share: float) -> Arm:
        """The first `share` of the steps, 0 … 1, at the learning rates of the whole."""
        if share >= 1:
            return self
        return self.model_copy(update={"samples": max(1, int(self.samples * share)), "horizon": self.samples})

    @property
    def key(self) -> tuple[str, int, int]:
        """(pool, samples, horizon): what results are compared under."""
        return self.to_pool().id, self.samples, self.horizon or self.samples


class Proposal(BaseModel):
    """A typed request for trials: every pool at every seed, and the control at some more.

    control_seeds: further seeds of the pools that are controls, which belong to what is compared with them.
    cites: ids of the pools, trials or proposals that it rests on. expected: change in percent, or None.
    fallback: what happens when it is rejected. suggestion: what a person or a model wrote, of which this is the draft.
    parent: id of the proposal that this is an edited version of. init: the trial whose checkpoint a cycle starts from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: Literal[1] = 1
    origin: Origin
    kind: str
    stage: str
    pools: tuple[Arm, ...]
    seeds: tuple[int, ...]
    control_seeds: tuple[int, ...] = ()
    reason: str
    cites: tuple[str, ...] = ()
    expected: float | None = None
    fallback: str = "the stage goes on without it"
    suggestion: Suggestion | None = None
    parent: Id | None = None
    init: Id | None = None

    @model_validator(mode="after")
    def _asks_for_trials(self) -> Proposal:
        """Every proposal trains, but for those of kinds that say otherwise."""
        if (self.suggestion is None or self.suggestion.experiment.trains) != bool(self.pools and self.seeds):
            raise ValueError("pools and seeds are needed, and there are none where nothing is trained")
        return self

    @property
    def runs(self) -> list[tuple[Arm, int]]:
        """Every pool with every seed that it is asked for at, seed by seed."""
        more = [s for s in self.control_seeds if s not in self.seeds]
        asked = [(arm, seed) for seed in self.seeds for arm in self.pools]
        return [*asked, *((arm, seed) for seed in more for arm in self.pools if arm.kind == "control")]

    @property
    def is_control(self) -> bool:
        """True where nothing but controls is asked for."""
        return bool(self.pools) and all(arm.kind == "control" for arm in self.pools)

    @property
    def id(self) -> str:
        """Content hash of what is asked for; the same request is the same proposal."""
        asked = [p.model_dump(include={"pool", "samples", "horizon"}, exclude_none=True) for p in self.pools]
        start: list[object] = [self.init] if self.init else []
        if self.suggestion is not None:
            start += self.suggestion.experiment.where
            if not self.suggestion.experiment.trains:
                start.append(self.suggestion.experiment.model_dump_json())
        kind = ID_WORDS.get(self.kind, self.kind)
        start += [{"control": list(self.control_seeds)}] if self.control_seeds else []
        return content_id([self.version, kind, self.stage, asked, list(self.seeds), *start], 12)


ID_WORDS = {"transfer": "scale"}  # an id keeps the word that its kind had when the first of them were made


def stored_proposal(content: Mapping[str, Any]) -> Proposal:
    """The proposal in a stored content; the gate's notes are left aside. Raises: ValidationError."""
    return Proposal.model_validate({k: v for k, v in content.items() if k in Proposal.model_fields})


@dataclass(frozen=True)
class StoredProposal:
    """A proposal as the journal keeps it.

    content: what was stored: the proposal with the gate's notes, or a suggestion that could not be drafted.
    cost: estimated device-seconds, or None. at: UTC, ISO 8601.
    """

    id: str
    setup: str
    origin: str
    kind: str
    stage: str
    status: str
    cost: float | None
    at: str
    content: Mapping[str, Any]

    @property
    def proposal(self) -> Proposal:
        """The proposal, without the gate's notes. Raises: StoreError for a suggestion that was never drafted."""
        try:
            return stored_proposal(self.content)
        except ValueError as error:
            raise damaged(f"proposal {self.id}", error) from error

    @property
    def reason(self) -> str:
        """Why it is asked for."""
        return str(self.content["reason"])

    @property
    def gate(self) -> str:
        """What the gate said."""
        return str(self.content["gate"])
