"""Trials as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FRESH = 1_000  # seeds from here on confirm; the ranking never reads them

TrialState = Literal["WAITING", "RUNNING", "COMPLETE", "FAIL", "CANCELLED"]


@dataclass(frozen=True)
class Trial:
    """One training with its evaluation, and how far it is.

    pool: its id; label, kind: the pool's. init: the trial whose checkpoint it starts from. samples: rows trained on
    in all, of a learning-rate schedule of `horizon`; the first `resumed` are taken from a shorter trial.
    estimate, seconds: of device time. started, finished: UTC, ISO 8601. procedure: how it was trained on its device, as
    JSON: precision, attention, checkpointing, optimizer, compiled, micro_batch; None where its task did not say.
    """

    id: str
    setup: str
    pool: str
    label: str
    kind: str
    seed: int
    init: str | None
    samples: int
    horizon: int
    stage: str
    proposal: str
    state: TrialState
    attempts: int = 0
    resumed: int = 0
    estimate: float | None = None
    seconds: float | None = None
    device: str | None = None
    started: str | None = None
    finished: str | None = None
    error: str | None = None
    procedure: str | None = None

    @property
    def fresh(self) -> bool:
        """True with a seed that confirms."""
        return self.seed >= FRESH

    @property
    def whole(self) -> bool:
        """True when it trains to the end of its schedule."""
        return self.samples == self.horizon
