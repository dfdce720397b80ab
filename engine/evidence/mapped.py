"""Mapped pools against the same rows without mapping (Table 15)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from engine.data.mappers import key_of
from engine.evidence.ranking import rank
from engine.journal import results
from engine.journal.results import MapperSummary
from engine.records.leaderboard import Entry
from engine.study.view import StudyView


@dataclass(frozen=True)
class MappedEntry(Entry):
    """A mapped pool against the same rows as they are.

    against: what those are called. fresh: the same on fresh seeds. rewritten: what the mappers did, with examples.
    """

    against: str
    fresh: Entry | None
    rewritten: MapperSummary | None


def judged(view: StudyView) -> list[MappedEntry]:
    """Mapped pools with results, best first, on the probing seeds and on fresh ones."""
    fresh = {r.pool.id: r.entry() for r in rank(view, ("mapper",), fresh=True)}
    return [
        MappedEntry(
            **asdict(r.entry()), against=r.label.split(" → ", maxsplit=1)[0], fresh=fresh.get(r.pool.id),
            rewritten=results.mapped(key_of(r.pool.mappers)).get(view.store, view.setup),
        )
        for r in rank(view, ("mapper",))
    ]  # fmt: skip
