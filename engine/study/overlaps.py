"""What a study's training rows have in common with what its models are judged by, and what becomes of such rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from engine.base.errors import DataError
from engine.data.judged import Judged, Side
from engine.data.overlap import LOOKED_AT, MOST, Search, by_what, summary
from engine.data.scan import Scan
from engine.data.tars import media_root
from engine.records.overlap import Overlap

if TYPE_CHECKING:
    from engine.study.opened import OpenStudy


def judged_by(opened: OpenStudy) -> list[Judged]:
    """All that models are judged by and the training rows can be compared with. Raises: DataError."""
    found: list[Judged] = []
    if opened.has_evaluation_rows and (by := by_what(opened.data, opened.evaluation)):
        root = media_root(opened.evaluation.path, opened.state)
        found.append(Judged("", "evaluation rows", by, Side(opened.evaluation, root, opened.evaluation_scan.good)))
    if opened.study.task:
        found += opened.task.judged_by(opened.study, opened.folder)
    return [judged for judged in found if getattr(opened.data.fields, judged.by)]


def search(opened: OpenStudy, quick: bool = False) -> Search:
    """How the training rows are compared. quick: few rows of large data."""
    train = Side(opened.data, media_root(opened.data.path, opened.state), opened.deduplicated.good)
    every = opened.study.evaluation.overlap != "warn" and not quick
    notice = opened.progress("search for evaluation rows in the data")
    most = LOOKED_AT if quick else None if every else MOST
    return Search(train, opened.study.dedup, opened.state, opened.workers, most, notice)


def overlaps(opened: OpenStudy, quick: bool = False) -> list[Overlap]:
    """What the training rows have in common with each evaluation. quick: of few rows, where not all were compared yet.

    Raises: DataError.
    """
    every, whole = judged_by(opened), search(opened)
    left_out = opened.study.evaluation.overlap == "drop"
    with opened.crew(opened.data):
        if quick:
            some = search(opened, quick=True)
            some.found([judged for judged in every if whole.known(judged) is None])
            found = [whole.known(judged) or some.found([judged])[0] for judged in every]
        else:
            found = whole.found(every)
    return [summary(one, whole.train, judged, left_out) for one, judged in zip(found, every, strict=True)]


def are_known(opened: OpenStudy) -> bool:
    """True where the training rows were compared with each evaluation."""
    whole = search(opened)
    return all(whole.known(judged) is not None for judged in judged_by(opened))


def without(opened: OpenStudy, found: Scan) -> Scan:
    """The scan without rows that are like what the models are judged by. Raises: DataError where such are refused."""
    whole = search(opened)
    with opened.crew(opened.data):
        every = judged_by(opened)
        pairs = whole.found(every)
    if opened.study.evaluation.overlap == "refuse":
        told = [summary(one, whole.train, judged, False).text for one, judged in zip(pairs, every, strict=True)
                if len(one.rows)]  # fmt: skip
        if told:
            raise DataError(f"{' '.join(told)} evaluation.overlap is refuse; take them out, or write drop or warn")
    good = found.good.copy()
    for one in pairs:
        good[one.rows] = False
    return replace(found, good=good, overlapping=int(np.sum(found.good & ~good)))
