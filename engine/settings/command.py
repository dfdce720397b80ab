"""Section `command` of `study.yaml`: your own trainer."""

from __future__ import annotations

import re
import shlex
import string
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from engine.settings.section import Section, amount_of_time

PLACES = ("pool", "init", "seed", "out", "samples", "epochs", "eval", "trial", "devices")


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
    env: tuple[str, ...] = Field((), description="variables that it gets besides the usual ones, by name")

    @field_validator("run", mode="before")
    @classmethod
    def _split(cls, run: Any) -> Any:
        return shlex.split(run) if isinstance(run, str) else run

    @field_validator("env")
    @classmethod
    def _are_names(cls, env: tuple[str, ...]) -> tuple[str, ...]:
        for place, name in enumerate(env, 1):
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):  # it may be a key, so it is not repeated
                raise ValueError(f"entry {place} is no name of a variable; write names only, values stay outside")
        return env

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
