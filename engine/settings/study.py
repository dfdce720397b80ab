"""The study file `study.yaml`: what it may hold, with defaults, and how it is read and written.

Unknown keys are refused; every message names the field and what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from engine.base.ids import json_text
from engine.settings.command import CommandSection
from engine.settings.data import DatasetSection, DedupSection, EvaluationSection, PoolsSection
from engine.settings.model import DistillSection, LoraSection, ModelSection, TrainSection, VideoSection, VlmSection
from engine.settings.running import AgentSection, CacheSection, ExecutorSection, GuardSection, NotifySection
from engine.settings.scores import ScoresSection
from engine.settings.search import (
    CombineSection,
    ConfirmSection,
    CyclesSection,
    MixturesSection,
    ScaleSection,
    SearchSection,
)
from engine.settings.section import Section, amount_of_time
from engine.settings.target import TargetSection
from engine.settings.track import TrackSection

Model = TypeVar("Model", bound=BaseModel)
STAGES = ("probe", "combine", "scale", "screen", "confirm")
DESIGNED = (
    "pools.size",
    "pools.most",
    "search.top",
    "search.effort",
    "search.rungs",
    "search.keep",
    "search.screen.top",
    "search.screen.seeds",
    "combine.top",
    "combine.clusters",
    "combine.max",
    "scale.rates",
    "confirm.candidates",
    "confirm.seeds",
)  # fields that `design: auto` chooses where study.yaml does not
RARE = (
    "design",
    "most",
    "lora",
    "vlm",
    "video",
    "distill",
    "command",
    "dedup",
    "target",
    "scores",
    "cache",
    "notify",
    "track",
    "mlflow",
    "wandb",
    "trackio",
    "tensorboard",
    "slurm",
    "sources",
    "columns",
    "mixtures",
    "precision",
    "optimizer",
    "activation_checkpointing",
    "compile",
    "devices_per_trial",
    "sets",
    "warmup_steps",
    "decay",
    "crop",
)  # sections and fields that are written only where they say something


class Study(Section):
    """The whole of `study.yaml`."""

    name: str = Field(description="what the study is called")
    seed: int = Field(0, ge=0, description="seed of every sample that is drawn")
    target: TargetSection = TargetSection()
    dataset: DatasetSection
    evaluation: EvaluationSection = EvaluationSection()
    task: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]*$", description="what is trained, see docs/guides/tasks.md; null: nothing"
    )
    model: ModelSection = ModelSection()
    lora: LoraSection = LoraSection()
    vlm: VlmSection = VlmSection()
    video: VideoSection = VideoSection()
    distill: DistillSection = DistillSection()
    command: CommandSection = CommandSection()
    train: TrainSection = TrainSection()
    ops: dict[str, dict[str, Any]] = Field(
        description="Data-Juicer filter OPs whose statistics are probed, with their parameters"
    )
    scores: ScoresSection = ScoresSection()
    dedup: DedupSection = DedupSection()
    pools: PoolsSection = PoolsSection()
    search: SearchSection = SearchSection()
    mixtures: MixturesSection = MixturesSection()
    combine: CombineSection = CombineSection()
    scale: ScaleSection = ScaleSection()
    confirm: ConfirmSection = ConfirmSection()
    cycles: CyclesSection = CyclesSection()
    cache: CacheSection = CacheSection()
    executor: ExecutorSection = ExecutorSection()
    devices_per_trial: int = Field(
        1, ge=1, description="devices that train one trial together, and are charged for it (docs/guides/devices.md)"
    )
    budget: str = Field("8gpu-hours", description="device time that may be spent: 8gpu-days, 6gpu-hours, 30min")
    design: Literal["auto", "fixed"] = Field(
        "fixed",
        description="auto: sizes of pools, search and confirmation that stand nowhere here are fitted to the budget; "
        "fixed: they have their defaults (docs/guides/search.md)",
    )
    approve: Literal["auto", "hold"] = Field(
        "auto",
        description="auto: the policy approves what passes the gate; hold: every proposal waits for a person",
    )
    agent: AgentSection = AgentSection()
    guard: GuardSection = GuardSection()
    notify: NotifySection = NotifySection()
    track: TrackSection = TrackSection()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the study has; the screening only where it is asked for."""
        return tuple(s for s in STAGES if s != "screen" or self.search.screen.top)

    @model_validator(mode="after")
    def _has_something_to_mix(self) -> Study:
        if self.search.strategy == "mixtures" and not self.mixtures.over and len(self.dataset.sources) < 2:
            raise ValueError("search.strategy mixtures needs two sources or more under dataset.sources")
        return self

    @field_validator("budget")
    @classmethod
    def _is_budget(cls, budget: str) -> str:
        return amount_of_time(budget)

    @field_validator("search", "executor", "cycles", mode="before")
    @classmethod
    def _section_from_name(cls, value: Any, info: ValidationInfo) -> Any:
        """`search: grid`, `executor: ray` and `cycles: 3` say all that most people want to."""
        key = {"search": "strategy", "executor": "kind", "cycles": "max"}[str(info.field_name)]
        return {key: value} if isinstance(value, str | int) else value

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


def explicit(study: Study) -> tuple[str, ...]:
    """Fields that `design: auto` would choose, and that the study sets itself."""
    return tuple(name for name in DESIGNED if _is_set(study, name.split(".")))


def _is_set(section: Any, path: list[str]) -> bool:
    name, *rest = path
    if name not in section.model_fields_set:
        return False
    value = getattr(section, name)
    return _is_set(value, rest) if rest else value not in (None, "auto")


def with_fields(section: Model, fields: Mapping[str, Any]) -> Model:
    """The section with other values of these fields, named as `confirm.seeds`."""
    update: dict[str, Any] = {}
    for name in dict.fromkeys(field.split(".")[0] for field in fields):
        if name in fields:
            update[name] = tuple(fields[name]) if isinstance(fields[name], list) else fields[name]
        else:
            inner = {f.split(".", 1)[1]: v for f, v in fields.items() if f.startswith(f"{name}.")}
            update[name] = with_fields(getattr(section, name), inner)
    return section.model_copy(update=update)


def study_yaml(study: Study) -> str:
    """The study as commented YAML: every field of the sections that it uses, with its description."""
    left = [name for name in DESIGNED if name not in explicit(study)] if study.design == "auto" else []
    return "\n".join(_lines(study, 0, left)) + "\n"


def _lines(section: BaseModel, depth: int, left: Sequence[str] = ()) -> list[str]:
    """left: fields that are chosen when the study runs, as `confirm.seeds`."""
    pad = "  " * depth
    lines: list[str] = []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name in left:
            lines.append(f"{pad}# {name}: by the budget; {info.description}")
            continue
        if name in RARE and value == info.default:
            continue
        if isinstance(value, BaseModel):
            title = (type(value).__doc__ or "").strip().splitlines()[0].rstrip(".")
            lines += ["", f"# {title}"] if depth == 0 else []
            inner = [f.split(".", 1)[1] for f in left if f.startswith(f"{name}.")]
            within = _lines(value, depth + 1, inner)
            bare = all(line.lstrip().startswith("#") for line in within)  # nothing of it is set
            lines += [f"{pad}{name}:{' {}' * bare}", *within]
        elif name == "ops":
            lines += ["", f"# {info.description}", "ops:"]
            lines += [f"  {op}: {_scalar(params)}" for op, params in value.items()] or ["  {}"]
        else:
            lines.append(f"{pad}{name}: {_scalar(value)}  # {info.description}")
    return lines


def _scalar(value: Any) -> str:
    """One value as one line of YAML."""
    if isinstance(value, tuple):
        value = [v.model_dump() if isinstance(v, BaseModel) else v for v in value]
    if isinstance(value, dict):
        value = {k: v.model_dump(exclude_none=True) if isinstance(v, BaseModel) else v for k, v in value.items()}
    # as escapes where a character would not come back from a file (U+0085, U+2028)
    plain = json_text(value, ensure_ascii=False, default=str).isprintable()
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=plain)
    return text.removesuffix("\n...\n").strip()
