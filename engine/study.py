"""The study file `study.yaml`: what it may hold, with defaults, and how it is read and written.

Unknown keys are refused; every message names the field and what to write instead.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from engine.budget import parse_budget
from engine.errors import BudgetError, StudyError
from engine.paths import STATE_FOLDER as STATE_FOLDER
from engine.paths import STUDY_FILE as STUDY_FILE

STAGES = ("probe", "combine", "scale", "confirm")


class Section(BaseModel):
    """Base of the sections: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetSection(Section):
    """Where the rows are and what their fields are called."""

    path: str = Field(description="JSONL or Parquet file, or a Hugging Face dataset folder, relative to the study")
    text: str | None = Field("text", description="field of the text; null if there is none")
    images: str | None = Field(
        None, description="field of the image path(s), relative to the data file, or image bytes"
    )
    videos: str | None = Field(None, description="field of the video path(s), relative to the data file")
    id: str | None = Field(None, description="field of the row's id; null: the row's content is its id")
    max_bad: float = Field(0.2, ge=0, le=1, description="share of bad rows above which the study stops")


class EvaluationSection(Section):
    """What the reference models are judged on."""

    path: str | None = Field(None, description="labelled or captioned rows that are never trained on")
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


class ModelSection(Section):
    """The reference model."""

    preset: Literal["tiny", "small", "vit-b-32"] = Field(
        "tiny",
        description="tiny: seconds a trial on a CPU core; small: minutes; vit-b-32: DataComp's small track",
    )
    checkpoint: str | None = Field(
        None, description="local folder of a transformers CLIP checkpoint; replaces the preset"
    )


class TrainSection(Section):
    """How every trial is trained; the same for all pools."""

    epochs: float = Field(4.0, gt=0, description="passes over a pool of the common size; 0.5 is half a pass")
    batch_size: int = Field(64, ge=2, description="pairs that are contrasted with each other in a step")
    micro_batch: int | None = Field(
        None, ge=2, description="rows that go through the towers at once; halved when memory runs out"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps of linear warm-up; then cosine to zero")
    clip_norm: float = Field(1.0, gt=0, description="norm to which gradients are clipped")
    keep_checkpoints: int = Field(3, ge=0, description="checkpoints that are kept, best first")


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


class SearchSection(Section):
    """How much evidence is gathered, and how."""

    strategy: Literal["race", "grid"] = Field(
        "race",
        description="race: short trials first, more for what may still be among the best; "
        "grid: every pool, every seed, to the end (the paper)",
    )
    seeds: int = Field(3, ge=1, description="grid: seeds of every pool and of the control in probe and combine")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of the intervals, over all pools together")
    top: int = Field(5, ge=1, description="race: pools that it must tell from all others")
    rungs: tuple[tuple[Annotated[float, Field(gt=0, le=1)], Annotated[int, Field(ge=1)]], ...] = Field(
        ((0.25, 1), (0.5, 1), (0.5, 2)),
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

    @field_validator("rungs")
    @classmethod
    def _rungs_rise(cls, rungs: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        for before, after in pairwise(rungs):
            if after[0] < before[0] or after[1] < before[1] or after == before:
                raise ValueError(f"rung {list(after)} does not go beyond {list(before)}")
        return rungs


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


class ExecutorSection(Section):
    """Where trials run."""

    kind: Literal["local", "ray"] = Field("local", description="local: this machine's devices; ray: a Ray cluster's")
    address: str | None = Field(
        None, description="address of a running Ray cluster; null: RAY_ADDRESS, or a Ray of this machine's own"
    )


class AgentSection(Section):
    """The optional language model; its key is read from OPENAI_API_KEY, its server from OPENAI_BASE_URL."""

    model: str | None = Field(None, description="name of the chat model; null: no model is asked")
    proposals: int = Field(3, ge=1, le=10, description="proposals that it is asked for after each stage")
    tries: int = Field(3, ge=1, le=10, description="replies that it may give until one is valid and passes the gate")
    timeout: float = Field(60.0, gt=0, description="seconds that one request may take")
    patience: float = Field(300.0, gt=0, description="seconds that one round of questions may take, retries counted")
    tokens: int = Field(200_000, ge=0, description="tokens, read and written, that the study may use in all")
    price: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = Field(
        None, description="[read, written] dollars per million tokens, to count costs; null: not counted"
    )
    max_cost: float | None = Field(None, gt=0, description="dollars that the study may spend on it; needs price")
    rows: int = Field(3, ge=0, le=20, description="rows of a bucket that it may see at once; 0: none of your data")

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> AgentSection:
        if self.max_cost is not None and self.price is None:
            raise ValueError("max_cost needs price: [read, written] dollars per million tokens")
        return self


class GuardSection(Section):
    """Guard-rails: what may be approved of a language model's proposals without a person."""

    approve: Literal["auto", "hold"] = Field(
        "hold", description="hold: a model's proposals wait for a person; auto: those within the guard-rails run"
    )
    kinds: tuple[Literal["combine", "bucket", "repeat", "seeds"], ...] = Field(
        ("combine", "seeds"), description="kinds of proposals that may be approved"
    )
    cost: str | None = Field("30min", description="device time that one of them may take at most; null: any")
    cost_per_day: str | None = Field("2gpu-hours", description="device time of all in 24 hours; null: any")
    paper_agrees: bool = Field(True, description="only if the paper's procedure would ask for it as well")

    @field_validator("cost", "cost_per_day")
    @classmethod
    def _is_amount(cls, amount: str | None) -> str | None:
        return None if amount is None else _amount(amount)


def _amount(budget: str) -> str:
    """The text of an amount of device time, checked. Raises: ValueError."""
    try:
        parse_budget(budget)
    except BudgetError as error:
        raise ValueError(str(error)) from error
    return budget


class Study(Section):
    """The whole of `study.yaml`."""

    name: str = Field(description="what the study is called")
    seed: int = Field(0, ge=0, description="seed of every sample that is drawn")
    dataset: DatasetSection
    evaluation: EvaluationSection = EvaluationSection()
    task: Literal["clip"] | None = Field(None, description="clip: image–text contrastive pre-training; null: no task")
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    ops: dict[str, dict[str, Any]] = Field(
        description="Data-Juicer filter OPs whose statistics are probed, with their parameters"
    )
    pools: PoolsSection = PoolsSection()
    search: SearchSection = SearchSection()
    combine: CombineSection = CombineSection()
    scale: ScaleSection = ScaleSection()
    confirm: ConfirmSection = ConfirmSection()
    executor: ExecutorSection = ExecutorSection()
    budget: str = Field("8gpu-hours", description="device time that may be spent: 8gpu-days, 6gpu-hours, 30min")
    approve: Literal["auto", "hold"] = Field(
        "auto",
        description="auto: the policy approves what passes the gate; hold: every proposal waits for a person",
    )
    agent: AgentSection = AgentSection()
    guard: GuardSection = GuardSection()

    @field_validator("budget")
    @classmethod
    def _is_budget(cls, budget: str) -> str:
        return _amount(budget)

    @field_validator("search", "executor", mode="before")
    @classmethod
    def _section_from_name(cls, value: Any, info: ValidationInfo) -> Any:
        """`search: grid` and `executor: ray` say all that most people want to."""
        key = {"search": "strategy", "executor": "kind"}[str(info.field_name)]
        return {key: value} if isinstance(value, str) else value

    @field_validator("ops", mode="before")
    @classmethod
    def _ops_from_list(cls, ops: Any) -> Any:
        """A list of names, or of one-key mappings, is as good as a mapping; null parameters are none."""
        if isinstance(ops, list):
            entries = [dict.fromkeys([o]) if isinstance(o, str) else o for o in ops]
            if any(not isinstance(e, dict) for e in entries):
                raise ValueError("each entry is an OP's name or a mapping from its name to its parameters")
            names = [name for entry in entries for name in entry]
            if twice := {n for n in names if names.count(n) > 1}:
                raise ValueError(f"{', '.join(sorted(twice))} stands twice; give each OP once")
            ops = {name: params for entry in entries for name, params in entry.items()}
        if isinstance(ops, dict):
            return {name: params or {} for name, params in ops.items()}
        return ops

    @model_validator(mode="after")
    def _task_has_what_it_needs(self) -> Study:
        if self.task == "clip":
            for field in ("text", "images"):
                if getattr(self.dataset, field) is None:
                    raise ValueError(f"task clip needs dataset.{field}; name the field, or set task: null")
            if self.evaluation.path is None:
                raise ValueError("task clip needs evaluation.path: rows that are never trained on")
        return self


def read_study(folder: Path) -> Study:
    """Read and validate `folder/study.yaml`.

    Raises: StudyError in one line that names the field and the remedy.
    """
    file = folder / STUDY_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"no {STUDY_FILE} in {folder}; make one with: djsb init {folder} --data F.jsonl") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{file} cannot be read ({error}); check the path and its permissions") from error
    return parse_study(text, str(file))


def parse_study(text: str, where: str = STUDY_FILE) -> Study:
    """Validate the text of a study file; `where` names it in errors."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        line = f", line {at.line + 1}" if at else ""
        raise StudyError(f"{where}{line} is not YAML: {getattr(error, 'problem', error)}; mend it there") from error
    if not isinstance(raw, dict):
        raise StudyError(f"{where} is not a mapping of fields; make a new one with: djsb init")
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise StudyError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """All problems in one line, each with its field and what is wanted."""
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or "study"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown field; remove it (docs/study.md lists them all)"
        elif problem["type"] == "missing":
            message = "is missing; add it"
        else:
            got = problem.get("input")
            message += f" (it is {got!r})" if isinstance(got, str | int | float | bool) else ""
        lines.append(f"{field}: {message}")
    return "; ".join(lines)


def resolve(folder: Path, path: str) -> Path:
    """A path of the study file, relative to the study's folder."""
    return (folder / Path(path).expanduser()).resolve()


def digest(value: Any, length: int = 16) -> str:
    """Content hash of a JSON value: stable across runs, machines and key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=length // 2).hexdigest()


def study_yaml(study: Study) -> str:
    """The study as commented YAML: every field with its description."""
    return "\n".join(_lines(study, 0)) + "\n"


def _lines(section: BaseModel, depth: int) -> list[str]:
    pad = "  " * depth
    lines: list[str] = []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            title = (type(value).__doc__ or "").strip().splitlines()[0].rstrip(".")
            lines += ["", f"# {title}"] if depth == 0 else []
            lines += [f"{pad}{name}:", *_lines(value, depth + 1)]
        elif name == "ops":
            lines += ["", f"# {info.description}", "ops:"]
            lines += [f"  {op}: {_scalar(params)}" for op, params in value.items()] or ["  {}"]
        else:
            lines.append(f"{pad}{name}: {_scalar(value)}  # {info.description}")
    return lines


def _scalar(value: Any) -> str:
    """One value as one line of YAML."""
    if isinstance(value, tuple):
        value = list(value)
    # as escapes where a character would not come back from a file (U+0085, U+2028)
    plain = json.dumps(value, ensure_ascii=False, default=str).isprintable()
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=plain)
    return text.removesuffix("\n...\n").strip()
