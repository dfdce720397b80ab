"""What other studies of the same data found: shown beside proposals as a prior, and evidence of nothing here.

The other studies lie beside this one, may come from anywhere and are only read. No number of theirs enters a ranking,
an answer or a search. Nothing of their fresh seeds is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from engine.base.errors import DjsbError
from engine.evidence.ranking import Ranked, rank
from engine.evidence.side_by_side import kept
from engine.records.leaderboard import bound_text
from engine.records.pool import Pool
from engine.study.neighbours import same_data
from engine.study.setting import differences, every_difference, shown
from engine.study.view import StudyView

STUDIES = 8  # that are read
EACH = 6  # findings of a study


@dataclass(frozen=True)
class Finding:
    """What another study says of a pool. differs: how its setting differs. same_task: it trains what this one does."""

    study: str
    differs: str
    same_task: bool
    pool: Pool
    label: str
    change: float
    bound: float | None
    verdict: str
    seeds: int

    @property
    def statistics(self) -> set[str]:
        """What the pool's slices are of."""
        return {s.statistic for layer in self.pool.layers for s in layer.slices}

    @property
    def claim(self) -> str:
        """`+12.0 %, at least +3.1 %, helps (5 seeds)`."""
        bound = "" if self.bound is None else f", {bound_text(self.verdict, self.bound)}"
        return f"{self.change:+.1f} %{bound}, {self.verdict} ({self.seeds} seed{'s' * (self.seeds != 1)})"

    @property
    def text(self) -> str:
        """As people are told."""
        said = f" ({self.differs})" if self.differs else ""
        return f"another study of this data, {self.study}{said}, found {self.label}: {self.claim}; no evidence here"

    def to_json(self) -> dict[str, Any]:
        """As commands print it."""
        return {**asdict(self), "pool": self.pool.to_json(), "text": self.text}


def elsewhere(view: StudyView) -> list[Finding]:
    """What is clear in other studies of the same data, theirs best first; a study that cannot be read says nothing."""
    found: list[Finding] = []
    for other in islice(same_data(view), STUDIES):
        try:
            theirs = shown(other)[0]
            ranked = [r for r in rank(theirs) if r.effect.verdict in ("helps", "hurts")]
        except DjsbError:
            continue
        changed = differences(view.study, theirs.study) if every_difference(view.study, theirs.study) else ""
        same = theirs.study.task == view.study.task
        found += [_finding(theirs.study.name, changed, same, r) for r in ranked[:EACH]]
    return found


def _finding(study: str, differs: str, same_task: bool, r: Ranked) -> Finding:
    e = r.effect
    assert e.change is not None
    return Finding(study, differs, same_task, r.pool, r.label, e.change, e.bound, e.verdict, e.seeds)


def on(findings: Iterable[Finding], pools: Collection[Pool]) -> list[Finding]:
    """Those on the same slices as one of these pools, then those on one of their statistics."""
    same = {kept(pool) for pool in pools}
    named = {s.statistic for pool in pools for layer in pool.layers for s in layer.slices}
    near = [f for f in findings if kept(f.pool) in same or f.statistics & named]
    return sorted(near, key=lambda f: kept(f.pool) not in same)


def blind(findings: Iterable[Finding], statistics: Collection[str]) -> list[str]:
    """The same for a language model: in words of this study alone, as another study's may be anybody's."""
    return [
        f"{'; '.join(str(s) for layer in f.pool.layers for s in layer.slices)}: {f.claim}, "
        f"{'the same' if f.same_task else 'another'} task"
        for f in findings if f.statistics and f.statistics <= set(statistics)
    ]  # fmt: skip
