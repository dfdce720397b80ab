"""Sections of `study.yaml`: the stages of the search."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from engine.settings.section import Section

STRATEGIES = ("race", "grid", "mixtures")  # that are built in
Rungs = tuple[tuple[Annotated[float, Field(gt=0, le=1)], Annotated[int, Field(ge=1)]], ...]
LOW = ((0.25, 1), (0.5, 1), (0.5, 2))  # a sixth of the grid's price
MEDIUM = ((0.25, 1), (0.5, 1), (1.0, 2), (1.0, 4))  # two fifths
MEDIUM_KEEPS = (2 / 3, 0.5, 0.5, 0.5)


class ScreenSection(Section):
    """The best recipes of the search at full length, on seeds of the search, before the confirmation chooses."""

    top: int = Field(0, ge=0, description="recipes that are trained to the end; 0: the confirmation takes the best")
    seeds: int = Field(4, ge=1, description="seeds of each, and of the control")


class SearchSection(Section):
    """How much evidence is gathered, and how."""

    strategy: str = Field(
        "race",
        pattern=r"^[a-z][a-z0-9_-]*$",
        description="race: short trials first, more for what may still be among the best; "
        "grid: every pool, every seed, to the end (the paper); mixtures: weights of sources "
        "(docs/guides/mixtures.md); or a plug-in's name (docs/guides/plugins.md)",
    )
    seeds: int = Field(3, ge=1, description="grid: seeds of every pool and of the control in probe and combine")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of the intervals, over all pools together")
    looks: Literal["rungs", "any"] = Field(
        "rungs",
        description="when verdicts are made: rungs: when all pools have the seeds of a rung or round; "
        "any: after every result, which takes more seeds to say anything",
    )
    top: int = Field(5, ge=1, description="race: pools that it must tell from all others")
    effort: Literal["low", "medium", "auto"] | None = Field(
        None,
        description="race: low (a sixth of the grid's price), medium (two fifths, finds more), auto (what the budget "
        "allows): sets rungs and keep; null: they hold as they stand",
    )
    rungs: Rungs = Field(
        LOW,
        min_length=1,
        description="race: [share of a trial's steps, seeds] of each rung; neither ever falls",
    )
    keep: float = Field(0.5, gt=0, lt=1, description="race: share of the pools that goes on to the next rung at most")
    drop: float = Field(
        0.01, ge=0, lt=0.5, description="race: a pool is dropped when its chance to be among the best is below this"
    )
    pause_gb: float = Field(
        20.0, ge=0, description="race: disk for the state of trials that may go on; beyond it they start anew"
    )
    screen: ScreenSection = ScreenSection()

    @property
    def course(self) -> tuple[tuple[tuple[float, int], ...], tuple[float, ...]]:
        """The race's rungs, and the share of the pools that goes on from each; `auto` is low until it is designed."""
        if self.effort == "medium":
            return MEDIUM, MEDIUM_KEEPS
        rungs = self.rungs if self.effort is None else LOW
        return rungs, (self.keep if self.effort is None else 0.5,) * len(rungs)

    @field_validator("rungs")
    @classmethod
    def _rungs_rise(cls, rungs: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        for before, after in pairwise(rungs):
            if after[0] < before[0] or after[1] < before[1] or after == before:
                raise ValueError(f"rung {list(after)} does not go beyond {list(before)}")
        return rungs


class MixturesSection(Section):
    """Weights of sources or buckets: what `search: mixtures` tries."""

    over: tuple[str, ...] = Field(
        (), description="what is weighted: names of sources, or buckets as `text_len low`; []: all sources"
    )
    max: int = Field(32, ge=4, le=1024, description="mixtures that are tried at most")
    max_repeats: int = Field(
        4, ge=1, le=64, description="how often an epoch sees a row of a source that is smaller than its share, at most"
    )

    @field_validator("over")
    @classmethod
    def _are_several(cls, over: tuple[str, ...]) -> tuple[str, ...]:
        if over and len(set(over)) < max(2, len(over)):
            raise ValueError("name two or more, each once")
        return over


class CombineSection(Section):
    """How OPs are combined into recipes (Section 3.2.2)."""

    top: int = Field(3, ge=1, le=6, description="best slices, one per OP, whose 2^n - 1 combinations are tried")
    clusters: int = Field(3, ge=0, le=6, description="Ward clusters whose best slice is combined; 0: leave out")
    max: int = Field(12, ge=1, le=127, description="most combinations of two or more slices that are tried")
    floor: float = Field(
        0.5, gt=0, le=1, description="share of the common pool size under which a combination is left out"
    )


class ScaleSection(Section):
    """Repetition against more, lower-ranked data (Section 3.2.3)."""

    rates: tuple[Annotated[int, Field(ge=2)], ...] = Field((2, 4, 8), description="repetition rates; []: leave out")
    recipes: int = Field(1, ge=1, description="best recipes that are scaled")
    seeds: int = Field(2, ge=1, description="seeds of every scaled pool")


class ConfirmSection(Section):
    """The best recipe is called best only after fresh seeds."""

    candidates: int = Field(2, ge=1, description="recipes that are confirmed")
    seeds: int = Field(5, ge=2, description="fresh seeds, of each candidate and of the control")
    all_data: bool = Field(True, description="compare with all rows at as many trained samples, too")


class CyclesSection(Section):
    """Cycles: the whole search again, from the best checkpoint (Appendix E.10)."""

    max: int = Field(
        1, ge=1, le=100, description="cycles at most; each goes on from the confirmed recipe's best checkpoint"
    )
