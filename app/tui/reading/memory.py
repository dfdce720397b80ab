"""What the reader keeps between two looks at a study, so that only what is new is read.

Rows that are as they were stay the same objects: whoever compares them by identity sees what has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from sys import intern
from typing import TYPE_CHECKING

from engine.base.ids import some

if TYPE_CHECKING:
    from engine.journal.costs import Cost
    from engine.journal.store import Row
    from engine.records.proposal import StoredProposal
    from engine.records.trial import Trial
    from engine.study.opened import OpenStudy

EVENTS = 1000  # latest, that the log shows
TRIAL = (
    "id", "pool", "label", "kind", "seed", "stage", "state", "samples", "horizon", "seconds", "device", "attempts",
    "error", "started", "finished",
)  # fmt: skip


def in_order(trial: Row) -> tuple[str, str]:
    """Trials go by when they ended or began; those that wait come last."""
    return trial["finished"] or trial["started"] or "z", trial["id"]


class Memory:
    """Of one opened study."""

    def __init__(self) -> None:
        self._trials: dict[str, Row] = {}
        self._costs: dict[str, Cost] = {}
        self._proposals: dict[str, tuple[StoredProposal, Row]] = {}
        self._events: dict[int, Row] = {}
        self._ended = self._charged = ""

    def trials(self, view: OpenStudy, states: Mapping[tuple[str, str], int]) -> tuple[Row, ...]:
        """All trials. states: (stage, state) → how many there are now."""
        from engine.journal import trials  # in the reading process only

        # a trial that has ended well never changes, so those that are open and those that ended lately are enough
        self._take(trials.changing(view.store, view.setup, self._ended))
        if Counter((t["stage"], t["state"]) for t in self._trials.values()) != states:
            self._trials.clear()
            self._take(trials.of_setup(view.store, view.setup))
        return tuple(sorted(self._trials.values(), key=in_order))

    def _take(self, read: Sequence[Trial]) -> None:
        for trial in read:
            row = some(trial, *TRIAL)
            for name in ("pool", "label", "kind", "stage", "state", "device"):
                row[name] = row[name] and intern(row[name])
            if self._trials.get(row["id"]) != row:
                self._trials[row["id"]] = row
            self._ended = max(self._ended, row["finished"] or "")

    def costs(self, view: OpenStudy) -> list[Cost]:
        """All costs, the latest last; a running trial's is written anew as it grows."""
        from engine.journal import costs  # in the reading process only

        for cost in costs.since(view.store, self._charged):
            self._costs.pop(cost.id, None)
            self._costs[cost.id] = cost
            self._charged = cost.at
        return list(self._costs.values())

    def proposals(self, view: OpenStudy) -> tuple[Row, ...]:
        """Proposals with their content read."""
        from engine.journal import proposals  # in the reading process only

        listed = [p for p in proposals.of_setup(view.store, view.setup) if p.status != "superseded"]
        for proposal in listed:
            if self._proposals.get(proposal.id, (None,))[0] != proposal:
                self._proposals[proposal.id] = proposal, asdict(proposal)
        return tuple(self._proposals[p.id][1] for p in listed)

    def events(self, view: OpenStudy) -> tuple[Row, ...]:
        """The latest events, the last first."""
        from engine.journal import events  # in the reading process only

        last = max(self._events, default=0)
        latest = {e.id: asdict(e) for e in events.last(view.store, EVENTS, after=last)}
        kept = list({**latest, **self._events}.items())[:EVENTS]
        self._events = dict(kept)
        return tuple(self._events.values())
