"""The sections of the study file, each with its fields, defaults and bounds. `study.py` holds the whole."""

from __future__ import annotations

import shlex
import string
from collections.abc import Set
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.budget import parse_budget
from engine.errors import BudgetError


class Section(BaseModel):
    """Base of the sections: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def later(default: Any, **options: Any) -> Any:
    """A field that came after the first version: at its default it is no part of a trial's id, so old trials count."""
    return Field(default, json_schema_extra={"later": True}, **options)


def shared(section: BaseModel, leave_out: Set[str] = frozenset()) -> dict[str, Any]:
    """The section's fields that trials have in common, as JSON, without some by name."""
    added = {
        name
        for name, info in type(section).model_fields.items()
        if isinstance(info.json_schema_extra, dict) and getattr(section, name) == info.get_default()
    }
    return section.model_dump(exclude={*leave_out, *added})


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

    path: str | None = Field(None, description="rows that are never trained on; for task command any file or folder")
    benchmarks: dict[str, str] = later(
        {}, description="benchmark files by name, relative to the study; docs/tasks.md says which a task reads"
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


class ModelSection(Section):
    """The reference model."""

    preset: str = Field("tiny", description="tiny: seconds on a CPU core; docs/tasks.md lists those of each task")
    checkpoint: str | None = Field(
        None, description="local folder of a checkpoint of the task's kind; replaces the preset"
    )


class LoraSection(Section):
    """Low-rank adapters in place of full fine-tuning (Hu et al. 2021)."""

    rank: int = Field(0, ge=0, description="rank of the adapters; 0: all weights are trained")
    alpha: float = Field(16.0, gt=0, description="their scale: alpha / rank")
    targets: tuple[str, ...] | None = Field(
        None, description="names of the layers that get one; null: those that the task names"
    )


class VlmSection(Section):
    """Image-to-text models (tasks vlm and caption)."""

    vision: str | None = Field(
        None, description="local folder of a CLIP vision checkpoint; with language it replaces the preset"
    )
    language: str | None = Field(
        None, description="local folder of a causal language model, joined to vision by a new projector"
    )
    trains: Literal["projector", "all"] = Field(
        "projector",
        description="vlm: what the pool trains without lora; the preset tiny knows nothing yet and needs all",
    )
    instructions: str | None = Field(
        None, description="vlm: question–answer rows of the second stage, the same for all trials; null: no such stage"
    )
    instruction_epochs: float = Field(1.0, gt=0, description="vlm: passes over the instructions")
    instruction_rate: float | None = Field(
        None, gt=0, description="vlm: peak learning rate of the second stage; null: train.learning_rate"
    )
    prompt: str = Field(
        "Provide a one-sentence caption for the provided image.",
        min_length=1,
        description="caption: what the model is asked (the paper's baseline prompt, Table 16)",
    )
    java: bool = Field(
        False, description="caption: words by the PTB tokenizer, and METEOR, as published; both need java"
    )
    answer_tokens: int = Field(24, ge=1, description="tokens of a generated answer or caption at most")


class VideoSection(Section):
    """Text-to-video models (task t2v)."""

    drop_text: float = Field(0.1, ge=0, lt=1, description="share of captions left out in training, for guidance")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="seeds that stand for a pool's first, second, … seed in place of 0, 1, … (the paper: 42, 45)"
    )
    samples: int = Field(
        0, ge=0, description="clips made for the captions of evaluation rows and scored; 0: only the held-out loss"
    )
    steps: int = Field(12, ge=1, le=1000, description="denoising steps of a clip")
    guidance: float = Field(2.0, ge=0, description="scale of classifier-free guidance")
    checks: bool = Field(
        False, description="exact checks of colour, object and motion by evaluation.label, as in the demo world"
    )
    clip: str | None = Field(
        None, description="local folder of a transformers CLIP, for subject_consistency and text_similarity"
    )
    detector: str | None = Field(
        None, description="local folder of a VideoMAE, ViViT or TimeSformer, for fvd; null: left out"
    )
    vbench: str | None = Field(
        None, description="command that runs VBench in its own environment, with {videos}, {prompts}, {out}"
    )
    vbench_prompts: str | None = Field(
        None, description="text file with a prompt a line; null: the captions of the sampled evaluation rows"
    )
    vbench_each: int = Field(5, ge=1, description="clips of each prompt (VBench: 5)")
    vbench_dimensions: tuple[str, ...] | None = Field(
        None, description="dimensions that the command measures; null: all 16, and the scores of the board"
    )
    vbench_seconds: float = Field(7200.0, gt=0, description="time that the command may take for one trial")

    @field_validator("vbench")
    @classmethod
    def _has_its_places(cls, command: str | None) -> str | None:
        if command is not None and not all(place in command for place in ("{videos}", "{out}")):
            raise ValueError("the command needs {videos} and {out} (docs/tasks.md shows one)")
        return command


class TrainSection(Section):
    """How every trial is trained; the same for all pools."""

    epochs: float = Field(4.0, gt=0, description="passes over a pool of the common size; 0.5 is half a pass")
    batch_size: int = Field(64, ge=2, description="rows of a step; clip contrasts them with each other")
    micro_batch: int | None = Field(
        None, ge=1, description="rows that go through the model at once; halved when memory runs out"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps of linear warm-up; then cosine to zero")
    clip_norm: float = Field(1.0, gt=0, description="norm to which gradients are clipped")
    keep_checkpoints: int = Field(3, ge=0, description="checkpoints that are kept, best first")


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


PLACES = ("pool", "init", "seed", "out", "samples", "epochs", "eval", "trial")


class CyclesSection(Section):
    """Cycles: the whole search again, from the best checkpoint (Appendix E.10)."""

    max: int = Field(
        1, ge=1, le=100, description="cycles at most; each goes on from the confirmed recipe's best checkpoint"
    )


class CommandMetric(Section):
    """One number that the command reports."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.@/-]{0,63}$", description="its key in the JSON lines")
    higher_is_better: bool = Field(True, description="its direction")
    low: float = Field(0.0, description="smallest value that it can take")
    high: float = Field(1.0, description="largest value that it can take")
    main: bool = Field(True, description="counts in the ranking")

    @model_validator(mode="after")
    def _has_a_scale(self) -> CommandMetric:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class CommandSection(Section):
    """Task command: your own trainer, started without a shell."""

    run: tuple[str, ...] = Field(
        (), description="program and arguments, a list or one line; {pool} {init} {seed} {out} and more are filled in"
    )
    format: Literal["jsonl", "parquet", "webdataset"] = Field(
        "jsonl", description="how the pool's rows are written: jsonl names media files, the others hold their bytes"
    )
    metrics: tuple[CommandMetric, ...] = Field((), description="its numbers: name, higher_is_better, low, high, main")
    timeout: str | None = Field(None, description="device time that one run may take, e.g. 6h; null: any")
    retries: int = Field(1, ge=0, le=10, description="how often a failed run is tried again")
    expected: str | None = Field(
        None, description="device time that a trial of the common size takes, for plan and budget until one has run"
    )
    keep_out: bool = Field(False, description="true: {out} is there again when a run that was cut off starts anew")
    env: tuple[str, ...] = Field((), description="variables with keys in their names that it may see; others are kept")

    @field_validator("run", mode="before")
    @classmethod
    def _split(cls, run: Any) -> Any:
        return shlex.split(run) if isinstance(run, str) else run

    @field_validator("metrics")
    @classmethod
    def _differ(cls, metrics: tuple[CommandMetric, ...]) -> tuple[CommandMetric, ...]:
        if len({m.name for m in metrics}) < len(metrics):
            raise ValueError("each metric may stand once")
        if metrics and not any(m.main for m in metrics):
            raise ValueError("one metric at least must be main: true, or nothing can be ranked")
        return metrics

    @field_validator("timeout", "expected")
    @classmethod
    def _is_amount(cls, amount: str | None) -> str | None:
        return None if amount is None else amount_of_time(amount)

    @model_validator(mode="after")
    def _knows_its_places(self) -> CommandSection:
        if unknown := [p for p in self.places if p not in PLACES]:
            named = ", ".join(f"{{{p}}}" for p in PLACES)
            raise ValueError(f"run: {{{unknown[0]}}} is not known; write {named}, or {{{{ and }}}} for braces")
        return self

    @property
    def places(self) -> list[str]:
        """The placeholders of the command line, in its order."""
        return [name for part in self.run for _, name, _, _ in string.Formatter().parse(part) if name is not None]

    @property
    def can_shorten(self) -> bool:
        """True when the command can be told to train on a part of the samples."""
        return "samples" in self.places or "epochs" in self.places


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
    kinds: tuple[Literal["combine", "bucket", "repeat", "seeds", "mapper", "prompt", "scale", "cycle"], ...] = Field(
        ("combine", "seeds"), description="kinds of proposals that may be approved"
    )
    cost: str | None = Field("30min", description="device time that one of them may take at most; null: any")
    cost_per_day: str | None = Field("2gpu-hours", description="device time of all in 24 hours; null: any")
    paper_agrees: bool = Field(True, description="only if the paper's procedure would ask for it as well")

    @field_validator("cost", "cost_per_day")
    @classmethod
    def _is_amount(cls, amount: str | None) -> str | None:
        return None if amount is None else amount_of_time(amount)


def amount_of_time(budget: str) -> str:
    """The text of an amount of device time, checked.

    Raises: ValueError.
    """
    try:
        parse_budget(budget)
    except BudgetError as error:
        raise ValueError(str(error)) from error
    return budget
