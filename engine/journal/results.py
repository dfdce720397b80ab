"""The table results: what stages came to, one typed accessor each. No other module knows their names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from engine.base.errors import damaged
from engine.base.ids import checked_id, plain
from engine.journal.caches import Duplicate
from engine.journal.store import FORMS, Store, now
from engine.records.cycle import CycleEnd
from engine.records.design import StudyDesign
from engine.records.leaderboard import Recipe, ScaleArm
from engine.records.metric import Metric
from engine.records.mixture import Surface
from engine.records.overlap import Overlap
from engine.records.sentence import Sentence

T = TypeVar("T")


class Result(Generic[T]):
    """One stored result of a cycle, as JSON.

    name: in the table. form: the type that its JSON is read as.
    """

    def __init__(self, name: str, form: Any) -> None:
        self.name, self._form = name, form

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self._form)

    def get(self, store: Store, setup: str) -> T | None:
        """What is stored; None where nothing is, or nothing came of it."""
        row = store.one("SELECT content FROM results WHERE setup = ? AND name = ?", (setup, self.name))
        return self.read(row["content"]) if row else None

    def read(self, content: str) -> T | None:
        """The value of a stored text. Raises: StoreError where it has another form."""
        try:
            return None if content == "null" else self._adapter.validate_json(content)
        except ValidationError as error:
            raise damaged(f"the result {self.name}", error) from error

    def put(self, store: Store, setup: str, value: T | None) -> None:
        """Store a value; None: that nothing came of it."""
        content = json.dumps(value, allow_nan=False, default=plain)
        store.put("results", {"setup": setup, "name": self.name, "content": content, "at": now()})

    def at(self, store: Store, setup: str) -> str | None:
        """When it was stored, be it that nothing came of it; None where it was not."""
        row = store.one("SELECT at FROM results WHERE setup = ? AND name = ?", (setup, self.name))
        return row["at"] if row else None


@dataclass(frozen=True)
class Calibration:
    """What the timing of a few steps came to.

    per_sample, fixed: device-seconds of a trained sample, and of a trial beside those. packs: trials at once →
    device-seconds of a sample. device: `expected` for the user's word. alone: packs were not timed.
    flops: of a trained sample, forward and backward. micro: rows at once that fit the device; None: the study's.
    checkpointing: activations are made again. compiled: the model's blocks are. memory: bytes of each device that a
    training is forecast to take, by what takes them; None where the task cannot tell.
    """

    per_sample: float
    fixed: float
    packs: dict[int, float]
    fastest_pack: int
    device: str
    alone: bool = False
    flops: float | None = None
    micro: int | None = None
    checkpointing: bool = False
    compiled: bool = False
    memory: dict[str, int] | None = None


@dataclass(frozen=True)
class Correlation:
    """Pearson's r between named series, and their Ward clusters.

    r: (names, names), None where a series is constant. order: names as the dendrogram lays them out.
    clusters: name → 1 … k. linkage: SciPy's (names - 1, 4) matrix.
    """

    names: list[str]
    r: list[list[float | None]]
    order: list[str]
    clusters: dict[str, int]
    linkage: list[list[float]]

    def pairs(self) -> list[tuple[float, str, str]]:
        """(r, one name, another) of every two series, the strongest first."""
        pairs = [
            (r, self.names[i], self.names[j])
            for i, row in enumerate(self.r) for j, r in enumerate(row[:i]) if r is not None
        ]  # fmt: skip
        return sorted(pairs, key=lambda p: -abs(p[0]))

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


@dataclass(frozen=True)
class Term:
    """A word that stands in more rows of a bucket than elsewhere.

    here, elsewhere: share of the rows that hold it, 0 … 1. z: log-odds ratio over its standard error.
    """

    word: str
    here: float
    elsewhere: float
    z: float


@dataclass(frozen=True)
class Duplicates:
    """rows: how many were left out. first: some of them."""

    rows: int
    first: list[Duplicate]

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


@dataclass(frozen=True)
class ModelScores:
    """Rows scored by a trial's checkpoint. file: in the cache, None until they are scored. statistic: its name."""

    trial: str
    file: str | None = None
    statistic: str | None = None

    def __post_init__(self) -> None:
        checked_id(self.trial, "the result model_scores")
        if self.file is not None and not FORMS["file"].fullmatch(self.file):
            raise damaged("the result model_scores", f"{self.file[:80]!r} is no file of scores")


@dataclass(frozen=True)
class MappedRow:
    """A row's text and the paths of its images, None for those that lie in the row itself."""

    text: str
    images: list[str | None]


@dataclass(frozen=True)
class MapperExample:
    """A row, by its number, before and after its mappers."""

    row: int
    before: MappedRow
    after: MappedRow


@dataclass(frozen=True)
class MapperSummary:
    """What mappers did to the rows of a pool. changed: rows. kept: why rows stayed as they were → how many."""

    mappers: list[str]
    rows: int
    changed: int
    kept: dict[str, int]
    examples: list[MapperExample]

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


@dataclass(frozen=True)
class Allocated:
    """A run of a job of Slurm that has not been settled. key: of its charge. seconds: device-seconds taken so far."""

    key: str
    job: str
    run: int
    devices: int
    seconds: float


# an earlier djsb stored one alone
Overlaps = Annotated[tuple[Overlap, ...], BeforeValidator(lambda told: [told] if isinstance(told, dict) else told)]
# trial → prompt → metric → value
PromptScores = dict[str, dict[str, dict[str, float | None]]]

BUDGET = Result[float]("budget", float)  # device-seconds that the engine may spend in all
DESIGN = Result[StudyDesign]("design", StudyDesign)  # what was fitted to the budget
CALIBRATION = Result[Calibration]("calibration", Calibration)
METRIC_SCALES = Result[tuple[Metric, ...]]("metric_scales", tuple[Metric, ...])
ENGINE = Result[Literal["running", "paused"]]("engine", Literal["running", "paused"])
ALLOCATED = Result[list[Allocated]]("allocated", list[Allocated])  # jobs that ran when last looked at
STATISTICS = Result[Correlation]("statistics", Correlation)  # of the statistics over the good rows
METRICS = Result[Correlation]("metrics", Correlation)  # of the metrics over the probing trials
TERMS = Result[dict[str, list[Term]]]("terms", dict[str, list[Term]])  # pool → the words that tell its bucket
DUPLICATES = Result[Duplicates]("duplicates", Duplicates)
OVERLAP = Result[tuple[Overlap, ...]]("overlap", Overlaps)  # of the training rows and each evaluation
PARTS = Result[dict[str, int]]("parts", dict[str, int])  # what mixtures weight → its good rows
MIXTURES = Result[Surface]("mixtures", Surface)  # what the regression on mixtures expects
SCALE = Result[list[ScaleArm]]("scale", list[ScaleArm])
RECIPE = Result[Recipe]("recipe", Recipe)
UNCONFIRMED = Result[str]("unconfirmed", str)  # why nothing can be concluded yet
LOOKS = Result[list[int]]("looks", list[int])  # fresh seeds at each reading of the confirmation
CYCLE = Result[CycleEnd]("cycle", CycleEnd)
MODEL_SCORES = Result[ModelScores]("model_scores", ModelScores)
PROMPTS = Result[PromptScores]("prompts", PromptScores)


def insight(stage: str) -> Result[list[Sentence]]:
    """The sentences on a stage."""
    return Result(f"insight:{stage}", list[Sentence])


def asked(stage: str) -> Result[list[str]]:
    """Proposals of the adviser at a stage, which is asked once."""
    return Result(f"asked:{stage}", list[str])


def mapped(key: str) -> Result[MapperSummary]:
    """What the mappers of this key did."""
    return Result(f"mapped:{key}", MapperSummary)


def every_mapped(store: Store, setup: str) -> list[MapperSummary]:
    """What all mappers of a cycle did, oldest first."""
    sql = "SELECT content FROM results WHERE setup = ? AND name LIKE 'mapped:%' ORDER BY at"
    summaries = (mapped("").read(row["content"]) for row in store.query(sql, (setup,)))
    return [s for s in summaries if s is not None]


def scores_file(store: Store, trial: str) -> str | None:
    """Name of the cached file of the rows' scores by a trial's checkpoint, in whatever cycle they were made."""
    row = store.one(
        "SELECT json_extract(content, '$.file') AS file FROM results WHERE name = ? "
        "AND json_extract(content, '$.trial') = ? AND json_extract(content, '$.file') IS NOT NULL",
        (MODEL_SCORES.name, trial),
    )
    return row["file"] if row else None
