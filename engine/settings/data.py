"""The sections of the study file that say which rows may stand in a pool and how pools are cut."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from engine.base.places import Place, parse_all
from engine.settings.section import Section, later

Split = Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")]


class DatasetSection(Section):
    """Where the rows are and what their fields are called."""

    path: str = Field(
        description="JSONL or Parquet file, a folder or pattern of Parquet files (train-*.parquet), or a Hugging Face "
        "dataset folder, relative to the study"
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


class EvaluationSection(Section):
    """What the reference models are judged on."""

    path: str | None = Field(None, description="rows that are never trained on; for task command any file or folder")
    split: Split | None = later(
        None, description="which split is read, where the path holds several; null: the only one"
    )
    benchmarks: dict[str, str] = later(
        {}, description="benchmark files by name, relative to the study; docs/guides/tasks.md says which a task reads"
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
    min_distinct: int | None = Field(
        None, ge=2, description="distinct values that a statistic needs; null: as many as buckets"
    )
    bounds: tuple[str, ...] | None = later(
        None,
        description="where buckets are cut: one place fewer than buckets, as [p10, p90] or [mean-1sd, mean+1sd]; "
        "null: into equal parts",
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
