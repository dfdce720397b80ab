"""What a pool keeps of the data and what it drops, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NAMED = 4  # concentrated patterns that a warning names


@dataclass(frozen=True)
class Shift:
    """How a quantity of the rows differs between those that are kept and all.

    kept, all: means; of a word, a template or a source the shares of rows that have it, 0 … 1. shift: the difference in
    standard deviations over all rows.
    """

    name: str
    kept: float
    all: float
    shift: float


@dataclass(frozen=True)
class SourceShare:
    """rows: good ones of a source. kept: those of them that the pool may draw."""

    name: str
    rows: int
    kept: int


@dataclass(frozen=True)
class Twin:
    """Two statistics that order the rows alike. cut: of the pool's slices. rho: Spearman's."""

    cut: str
    other: str
    rho: float


@dataclass(frozen=True)
class ShownRow:
    """A row, by its number: its text, cut off, and its first image as a small PNG in a data URI, or nothing."""

    row: int
    text: str
    picture: str = ""


@dataclass(frozen=True)
class Contents:
    """What a pool keeps and drops.

    rows: good ones. kept: those that it may draw; a mixture's and a union's are those of its first draw. looked: rows
    whose texts and statistics were compared. statistics, words, templates: the most changed first; templates are the
    first three words. concentrated: words, templates and sources whose share has more than doubled. twins: statistics
    that would say much the same as the pool's own.
    """

    pool: str
    label: str
    rows: int
    kept: int
    looked: int
    sources: tuple[SourceShare, ...]
    statistics: tuple[Shift, ...]
    words: tuple[Shift, ...]
    templates: tuple[Shift, ...]
    concentrated: tuple[tuple[str, Shift], ...]
    twins: tuple[Twin, ...]
    stays: tuple[ShownRow, ...]
    goes: tuple[ShownRow, ...]

    @property
    def warnings(self) -> list[str]:
        """What a person should know before using it, in sentences."""
        patterns = [
            f"the {kind} {s.name!r} ({100 * s.kept:.1f} % of the kept rows, {100 * s.all:.1f} % of all)"
            for kind, s in self.concentrated
        ]
        more = f" and {len(patterns) - NAMED} more" if len(patterns) > NAMED else ""
        found = [f"Concentrated in what it keeps: {', '.join(patterns[:NAMED])}{more}."] if patterns else []
        for cut in dict.fromkeys(t.cut for t in self.twins):
            others = ", ".join(f"{t.other} ({t.rho:+.2f})" for t in self.twins if t.cut == cut)
            found.append(f"{cut} orders the rows as {others} would: the pool may be standing in for that.")
        return found

    def to_json(self) -> dict[str, Any]:
        """As `djsb show --json` prints it."""
        return {**asdict(self), "warnings": self.warnings}
