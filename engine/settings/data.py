"""The sections of the study file that say which rows may stand in a pool and how pools are cut."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from engine.base.places import Place, parse_all
from engine.settings.section import Section, later

Split = Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")]
SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")]
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
PLAIN = re.compile(r"-?\w(?:[\w .,:;+%#@/()=-]{0,78}[\w+%#)])?")  # what tables, pages and paths can take as it is
MOST_VALUES = 64


class ColumnSection(Section):
    """A field whose values are words: each gives a pool."""

    values: tuple[bool | int | float | str, ...] | None = Field(
        None, description="of a field of one value a row: those with a pool"
    )
    tags: tuple[bool | int | float | str, ...] | None = Field(
        None, description="of a field that lists several: those with a pool"
    )

    @model_validator(mode="after")
    def _names_some(self) -> ColumnSection:
        if bool(self.values) == bool(self.tags):
            raise ValueError("give values or tags, as {values: [en, de]}, and not both")
        if len(named := self.values or self.tags or ()) > MOST_VALUES:
            raise ValueError(f"{len(named)} values are named, and {MOST_VALUES} may be; the others count as others")
        if len(set(named)) < len(named):
            raise ValueError("a value stands twice; name each once")
        if odd := [v for v in named if not PLAIN.fullmatch(str(v))]:
            raise ValueError(f"{str(odd[0])[:40]!r} cannot name a pool; leave it out, and it counts as others")
        return self


class SourceSection(Section):
    """One of several sources of rows; a field that is left out is called as in the dataset."""

    path: str = Field(min_length=1, description="as dataset.path")
    split: Split | None = Field(None, description="as dataset.split")
    text: str | None = Field(None, description="field of the text in this source")
    images: str | None = Field(None, description="field of the image path(s) in this source")
    videos: str | None = Field(None, description="field of the video path(s) in this source")
    id: str | None = Field(None, description="field of the row's id in this source")


Columns = dict[str, Literal["number"] | ColumnSection]


def _named_columns(columns: Any) -> Any:
    """Columns by name; of a list all are numbers."""
    if isinstance(columns, list) and all(isinstance(name, str) for name in columns):
        columns = dict.fromkeys(columns, "number")
    if not isinstance(columns, dict):
        raise ValueError("name the fields, as {similarity: number, language: {values: [en, de]}}")  # noqa: TRY004 (pydantic's)
    for name in columns:
        if not isinstance(name, str) or not PLAIN.fullmatch(name):
            raise ValueError(
                f"a field called {str(name)[:40]!r} cannot be a statistic; rename it to letters, digits and _ in "
                "at most 80 characters"
            )
    return columns


class ScoreFileSection(Section):
    """A file of scores beside the data: each of its rows belongs to the rows of the data that have its key."""

    path: str = Field(min_length=1, description="file, folder or pattern relative to the study, as dataset.path")
    key: str = Field(min_length=1, description="field that says which row of the data a score belongs to")
    file_key: str | None = Field(None, description="its name in the file of scores; null: as key")
    split: Split | None = Field(None, description="which split is read, where the path holds several")
    columns: Columns = Field(
        {}, description="as dataset.columns; none: all that are numbers, and those of few words, by the first 1000 rows"
    )

    _columns = field_validator("columns", mode="before")(_named_columns)


class DatasetSection(Section):
    """Where the rows are and what their fields are called."""

    path: str = Field(
        "",
        description="file, folder or pattern (train-*.parquet) relative to the study, hf://datasets/OWNER/NAME, or an "
        "address (https, s3, gs); docs/guides/data.md tells what opens",
    )
    split: Split | None = later(
        None, description="which split is read, where the path holds several; null: the only one"
    )
    text: str | None = Field("text", description="field of the text; null if there is none")
    images: str | None = Field(
        None, description="field of the image path(s), relative to the data file, or image bytes"
    )
    videos: str | None = Field(None, description="field of the video path(s), relative to the data file")
    id: str | None = Field(None, description="field of the row's id; null: the row's content is its id")
    max_bad: float = Field(0.2, ge=0, le=1, description="share of bad rows above which the study stops")
    sources: dict[str, SourceSection] = later(
        {}, description="several sources in place of path: {NAME: path, or {path, split, text, images, videos, id}}"
    )
    columns: Columns = later(
        {}, description="fields that are statistics: {NAME: number}, {NAME: {values: [en, de]}} or {NAME: {tags: […]}}"
    )
    scores: tuple[ScoreFileSection, ...] = later(
        (), description="files of scores joined by a key: {path: scores.parquet, key: uid}, or a list of such"
    )

    _columns = field_validator("columns", mode="before")(_named_columns)

    @field_validator("scores", mode="before")
    @classmethod
    def _one_file_or_several(cls, scores: Any) -> Any:
        return [scores] if isinstance(scores, dict) else scores

    @field_validator("sources", mode="before")
    @classmethod
    def _sources_have_names(cls, sources: Any) -> Any:
        if not isinstance(sources, dict):
            raise ValueError("give each source a name, as {laion: a.jsonl, cc3m: b.jsonl}")  # noqa: TRY004 (pydantic's)
        for name in sources:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ValueError(f"{str(name)[:80]!r} is no name of a source; write {{laion: {str(name)[:80]}}}, say")
        return {name: {"path": source} if isinstance(source, str) else source for name, source in sources.items()}

    @model_validator(mode="after")
    def _is_somewhere(self) -> DatasetSection:
        if bool(self.path) == bool(self.sources):
            raise ValueError(
                "give path or sources, and not both" if self.path else "path is missing; add it, or sources"
            )
        if self.sources and self.split:
            raise ValueError("split belongs to each source, as {laion: {path: laion, split: train}}")
        places = [(source.path, source.split) for source in self.sources.values()]
        if twice := next((place for place in places if places.count(place) > 1), None):
            raise ValueError(f"sources: {twice[0]} stands twice; name each file once")
        return self

    @property
    def places(self) -> str:
        """Where the rows come from, in words."""
        return self.path or ", ".join(source.path for source in self.sources.values())

    @property
    def unkeyed(self) -> set[str]:
        """Fields that the content of the data stands for, or that say nothing here."""
        return {"split", "columns", "scores"} | ({"sources"} if not self.sources else set())


class MetricGuard(Section):
    """A metric that a recipe must not buy its mean with."""

    metric: str = Field(min_length=1, description="a metric that the task measures")
    worst: float = Field(
        le=0, description="change against the control, in percent, below which the recipe is vetoed; -5 or '-5 %'"
    )

    @field_validator("worst", mode="before")
    @classmethod
    def _percent(cls, worst: Any) -> Any:
        return worst.removesuffix("%").strip() if isinstance(worst, str) else worst


class EvaluationSection(Section):
    """What the reference models are judged on."""

    path: str | None = Field(None, description="rows that are never trained on; for task command any file or folder")
    split: Split | None = later(
        None, description="which split is read, where the path holds several; null: the only one"
    )
    benchmarks: dict[str, str] = later(
        {}, description="benchmark files by name, relative to the study; docs/guides/tasks.md says which a task reads"
    )
    sets: dict[SetName, str] = later(
        {},
        description="clip: folders of clip_benchmark's WebDataset by name, relative to the study; the ranking counts "
        "their mean (docs/guides/tasks.md)",
    )
    label: str | None = Field(None, description="field of the class name, for zero-shot classification; or null")
    prompts: tuple[str, ...] = Field(
        ("a photo of a {}",), description="templates for a class name; their text features are averaged"
    )
    metrics: tuple[str, ...] | None = Field(
        None, description="metrics that count in the ranking; null: all that the task names as main"
    )
    aggregate: Literal["mean-of-changes", "change-of-means"] = Field(
        "mean-of-changes",
        description="mean of the metrics' relative changes, or relative change of their mean (Eq. 1 of the paper)",
    )
    held_back: float = later(
        0.0,
        ge=0,
        le=0.9,
        description="share of the evaluation's items that the search never sees and the confirmation is judged on; "
        "0: both are judged on all (docs/guides/statistics.md)",
    )
    guards: tuple[MetricGuard, ...] = later(
        (),
        description="metrics that a confirmed recipe must not collapse in: [{metric: NAME, worst: -5 %}] "
        "(docs/guides/statistics.md)",
    )
    overlap: Literal["warn", "drop", "refuse"] = later(
        "warn",
        description="training rows that are near-duplicates of what models are judged by (evaluation rows, sets, "
        "benchmarks): warn: they are told; drop: they are not trained on; refuse: the study does not run "
        "(docs/guides/data.md)",
    )

    @field_validator("guards")
    @classmethod
    def _one_guard_each(cls, guards: tuple[MetricGuard, ...]) -> tuple[MetricGuard, ...]:
        if len({guard.metric for guard in guards}) < len(guards):
            raise ValueError("a metric stands twice; give each one bound")
        return guards

    @field_validator("prompts")
    @classmethod
    def _one_place_each(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts or any(p.count("{}") != 1 for p in prompts):
            raise ValueError("every prompt needs exactly one {} for the class name")
        return prompts


class DedupSection(Section):
    """Duplicates leave before pools are cut, by Data-Juicer's deduplicators; the first row of each kind stays."""

    text: Literal["exact", "minhash"] | None = Field(
        None, description="exact: equal texts; minhash: similar ones (MinHash LSH); null: texts are not compared"
    )
    similarity: float = Field(
        0.7, gt=0, lt=1, description="minhash: Jaccard similarity of their shingles from which texts count as one"
    )
    window: int = Field(5, ge=1, le=100, description="minhash: tokens of a shingle; shorter texts must be equal")
    tokens: Literal["space", "punctuation", "character"] = Field(
        "space", description="minhash: what a text is split at; character for languages without spaces"
    )
    images: Literal["phash", "dhash", "ahash"] | None = Field(
        None, description="perceptual hash of the images; rows with equal hashes count as one; null: not compared"
    )


class PoolsSection(Section):
    """How pools are cut."""

    buckets: int = Field(3, ge=2, le=5, description="buckets of a statistic (the paper: 3)")
    size: int | None = Field(
        None,
        ge=2,
        description="rows of every pool; null: three quarters of rows / buckets, so that ties may shift",
    )
    most: int | None = later(
        None, ge=2, description="pools that are probed, of what differs most; null: all (docs/guides/search.md)"
    )
    min_distinct: int | None = Field(
        None, ge=2, description="distinct values that a statistic needs; null: as many as buckets"
    )
    bounds: tuple[str, ...] | None = later(
        None,
        description="where buckets are cut: one place fewer than buckets, as [p10, p90] or [mean-1sd, mean+1sd]; "
        "null: into equal parts",
    )
    rare: bool = later(
        False,
        description="pools beside the buckets: without the rare lowest or highest 1, 5 or 10 %, one a value where "
        "values are few, without a value or bucket that is rare (docs/guides/statistics.md)",
    )
    model_scores: bool = later(
        False,
        description="tasks clip and lm: the reference model's own score of each row as one more statistic "
        "(docs/guides/statistics.md)",
    )

    @model_validator(mode="before")
    @classmethod
    def _reads_the_retired_name(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "feedback" not in content or "model_scores" in content:
            return content
        return {"model_scores" if name == "feedback" else name: value for name, value in content.items()}

    @model_validator(mode="after")
    def _bounds_fit(self) -> PoolsSection:
        if self.bounds is not None and len(parse_all(self.bounds)) != self.buckets - 1:
            raise ValueError(f"bounds: {self.buckets} buckets are cut at {self.buckets - 1} places")
        return self

    @property
    def places(self) -> tuple[Place, ...]:
        """The bounds; none where buckets are equal."""
        return parse_all(self.bounds or ())
