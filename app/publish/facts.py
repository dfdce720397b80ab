"""What is told of a recipe that is published: what it keeps, what it rests on, who let it run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DjsbError, StudyError
from engine.evidence.answer import answer
from engine.evidence.contents import contents
from engine.evidence.recipe import standing_recipe
from engine.evidence.recipe_file import find_pool, recipe
from engine.journal import decisions, proposals, setups, trials
from engine.journal.pools import StoredPool
from engine.journal.setups import Setup
from engine.records.contents import Contents
from engine.records.decision import Decision
from engine.records.leaderboard import CycleRecipe
from engine.records.trial import Trial
from engine.study.opened import OpenStudy


@dataclass(frozen=True)
class Facts:
    """Of one recipe of a study. rows: numbers of the data's rows that it keeps, ascending. recipe: as YAML.

    confirmed: what fresh seeds said of it; None: a pool that is no confirmed recipe.
    answer: the study's, line by line. contents: what it keeps and drops, or None where that
    cannot be told. trials: those that finished, of the whole setup. decisions: on their proposals.
    """

    name: str
    task: str
    pool: StoredPool
    recipe: str
    rows: NDArray[np.int64]
    of: int
    source: str
    setup: Setup
    confirmed: CycleRecipe | None
    answer: Sequence[str]
    contents: Contents | None
    ops: Sequence[str]
    metrics: Sequence[str]
    trials: Sequence[Trial]
    decisions: Sequence[Decision]
    at: datetime

    @property
    def versions(self) -> dict[str, str]:
        """Of what made it."""
        return {name: version(name) for name in ("djsb", "py-data-juicer", "torch")}

    @property
    def spent(self) -> float:
        """Device-seconds of the trials."""
        return sum(t.seconds or 0.0 for t in self.trials)

    @property
    def counts(self) -> dict[str, int]:
        """Stage → finished trials."""
        return dict(Counter(t.stage for t in self.trials))

    @property
    def limits(self) -> list[str]:
        """What the evidence does not say."""
        found = [
            f"The evidence is of task {self.task}, one reference model and one evaluation; larger models, longer "
            "training and other evaluations may rank rows otherwise.",
            "Rows are chosen by statistics of single rows. What they say, and whether it is true, was not checked.",
        ]
        if self.confirmed is None:
            found.insert(0, "No fresh seeds have confirmed this pool; the best of many is the best by luck, too.")
        return found


def standing(opened: OpenStudy) -> list[str]:
    """The study's answer, and what a recipe rests on; nothing of who works on it now."""
    told = answer(opened)
    return [told.text, *(told.reasons if told.kind == "recipe" else ())]


def gather(opened: OpenStudy, start: str | None, said: Sequence[str]) -> Facts:
    """The facts of the confirmed recipe, or of the pool whose id begins so.

    said: as `standing`. Raises: StudyError where there is none.
    """
    best = standing_recipe(opened)
    if start is None and best is None:
        raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage, or name a pool with --pool")
    pool = find_pool(opened, start or (best.pool if best else ""))
    setup = setups.get(opened.store, opened.setup)
    if setup is None:
        raise StudyError(f"nothing was run yet in {opened.folder}; start with: djsb auto {opened.folder}")
    done = [t for t in trials.of_setup(opened.store, opened.setup) if t.state == "COMPLETE"]
    asked = {t.proposal for t in done}
    made = [d for p in proposals.by_ids(opened.store, sorted(asked)) for d in decisions.of_proposal(opened.store, p.id)]
    return Facts(
        name=opened.study.name, task=opened.study.task or "none", pool=pool, recipe=recipe(opened.folder, pool.id),
        rows=opened.kept_rows(pool.pool), of=int(opened.scan.good.sum()), source=_source(opened),
        setup=setup,
        confirmed=best if best and best.pool == pool.id else None,
        answer=said,
        contents=_contents(opened, pool), ops=[run.name for run in opened.op_plan[0]],
        metrics=[m.direction for m in opened.main_metrics], trials=done, decisions=made, at=datetime.now(UTC),
    )  # fmt: skip


def _source(opened: OpenStudy) -> str:
    """Where the rows come from: addresses as they are, of files on this machine the name only."""
    section = opened.study.dataset
    places = [section.path] if section.path else [source.path for source in section.sources.values()]
    return ", ".join(place if "://" in place else Path(place).name for place in places)


def _contents(opened: OpenStudy, pool: StoredPool) -> Contents | None:
    try:
        return contents(opened, pool)
    except DjsbError:  # as `djsb show` tells it
        return None
