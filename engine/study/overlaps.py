"""What a study's training rows have in common with what its models are judged by, and what becomes of such rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from engine.base.errors import DataError
from engine.data.judged import Judged
from engine.data.overlap import LOOKED_AT, MOST, Found, Search, summary
from engine.data.scan import Scan
from engine.records.overlap import Overlap


@dataclass(frozen=True)
class Comparison:
    """The training rows and all that models are judged by and they can be compared with.

    search: of all rows. rule: the study's `evaluation.overlap`. crew: within its block, the study's executor works.
    """

    search: Search
    every: Sequence[Judged]
    rule: str
    crew: Callable[[], AbstractContextManager[None]]

    @property
    def _own(self) -> Search:
        """Of so many rows as the rule hangs on."""
        return replace(self.search, most=MOST) if self.rule == "warn" else self.search

    @property
    def is_known(self) -> bool:
        """True where the rows were compared with each evaluation."""
        return all(self._own.known(judged) is not None for judged in self.every)

    def overlaps(self, quick: bool = False) -> list[Overlap]:
        """What they have in common with each evaluation. quick: of few rows, where the others were not compared yet.

        Raises: DataError.
        """
        with self.crew():
            if quick:
                some = replace(self.search, most=LOOKED_AT)
                some.found([judged for judged in self.every if self._own.known(judged) is None])
                found = [self._own.known(judged) or some.found([judged])[0] for judged in self.every]
            else:
                found = self._own.found(self.every)
        return self._told(found, self.rule == "drop")

    def without(self, scan: Scan) -> Scan:
        """The scan without rows that are like what models are judged by. Raises: DataError where such are refused."""
        if self.rule == "warn":
            return scan
        with self.crew():
            found = self.search.found(self.every)
        if self.rule == "refuse" and (told := [o.text for o in self._told(found, False) if o.rows]):
            raise DataError(f"{' '.join(told)} evaluation.overlap is refuse; take them out, or write drop or warn")
        good = scan.good.copy()
        for one in found:
            good[one.rows] = False
        return replace(scan, good=good, overlapping=int((scan.good & ~good).sum()))

    def _told(self, found: Sequence[Found], left_out: bool) -> list[Overlap]:
        pairs = zip(found, self.every, strict=True)
        return [summary(one, self.search.train, judged, left_out) for one, judged in pairs]
