"""A sweep in the form of W&B: what is varied, between which values, and what is to become best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.base.problems import each
from engine.pipeline.check import Node
from engine.pipeline.configuration import Problem, load
from engine.pipeline.contract import GROUPS

CONTINUOUS = ("uniform", "log_uniform", "log_uniform_values", "q_uniform", "q_log_uniform", "q_log_uniform_values")
WHOLE = ("int_uniform",)
NORMAL = ("normal", "q_normal", "log_normal", "q_log_normal")
DISTRIBUTIONS = ("constant", "categorical", *WHOLE, *CONTINUOUS, *NORMAL)


class _Metric(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = None


class _Stop(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["hyperband"]
    min_iter: int | None = Field(None, ge=1)
    max_iter: int | None = Field(None, ge=1)
    s: int | None = Field(None, ge=1)
    eta: int = Field(3, ge=2)
    strict: bool = False


class _File(BaseModel):
    """The keys of a sweep file; those that only W&B's own agents read are taken and left aside."""

    model_config = ConfigDict(extra="forbid")
    method: Literal["grid", "random", "bayes"]
    metric: _Metric
    parameters: dict[str, Any]
    sweep_name: str | None = None
    sweep_max_count: int | None = Field(None, ge=1)
    run_cap: int | None = Field(None, ge=1)
    early_terminate: _Stop | None = None
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None
    program: str | None = None
    command: Any = None


class _Parameter(BaseModel):
    """The keys of one parameter."""

    model_config = ConfigDict(extra="forbid")
    value: Any = None
    values: list[Any] | None = None
    probabilities: list[float] | None = None
    distribution: str | None = None
    min: float | int | None = None
    max: float | int | None = None
    q: float | None = Field(None, gt=0)
    mu: float = 0.0
    sigma: float = Field(1.0, gt=0)


@dataclass(frozen=True)
class Parameter:
    """A variable. places: (job, dotted key) that it is put into. kind: values, whole, uniform, log or normal.

    low, high: of the values themselves. step: of what is rounded.
    """

    name: str
    places: tuple[tuple[str, str], ...]
    kind: str
    values: tuple[Any, ...] = ()
    chances: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A search. most: variants at most, None without a limit. early: (fewest, most iterations, eta) of hyperband."""

    method: str
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    most: int | None
    target: float | None = None
    early: tuple[int, int, int] | None = None


def read_sweep(path: str, root: Path, nodes: Sequence[Node]) -> tuple[Sweep | None, list[Problem]]:
    """The search of a file, and what is wrong with it."""
    content = load(path, root)
    if isinstance(content, str):
        return None, [Problem("", "hpo_config", content)]
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        return None, [Problem("", f"hpo_config.{key}", text) for key, text in each(error)]
    problems: list[Problem] = []
    parameters = []
    for name, written in _flat(file.parameters):
        where = f"hpo_config.parameters.{name}"
        places = _places(name, nodes)
        if not places:
            problems.append(Problem("", where, "names no key of a job and no OP of a recipe"))
        read = _parameter(name, written, places)
        if isinstance(read, str):
            problems.append(Problem("", where, read))
        else:
            parameters.append(read)
    if not parameters and not problems:
        problems.append(Problem("", "hpo_config.parameters", "there is none, so there is nothing to search"))
    problems += _wrong_search(file, parameters)
    problems += _wrong_metric(file.metric.name, nodes)
    early = file.early_terminate
    stop = None
    if early:
        most = early.max_iter or 27
        stop = (early.min_iter or max(1, most // early.eta ** (early.s or 1)), most, early.eta)
    counts = [n for n in (file.sweep_max_count, file.run_cap) if n]
    metric = file.metric
    return Sweep(
        file.method, metric.name, metric.goal == "maximize", tuple(parameters), min(counts, default=None),
        metric.target, stop,
    ), problems  # fmt: skip


def _flat(parameters: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, what is written of it); `parameters` within a parameter are nested ones."""
    for name, written in parameters.items():
        if isinstance(written, Mapping) and isinstance(written.get("parameters"), Mapping):
            yield from _flat(written["parameters"], f"{before}{name}.")
        else:
            yield f"{before}{name}", written


def _places(name: str, nodes: Sequence[Node]) -> tuple[tuple[str, str], ...]:
    """Where a parameter goes: PIPELINE.JOB.GROUP.KEY, JOB.GROUP.KEY, GROUP.KEY of every job, or OP.KEY of recipes."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts[:3]) if part in GROUPS), None)
    found = []
    for node in nodes:
        job = node.job
        if at is not None:
            key = ".".join(parts[at:])
            named = parts[:at] in ([], [job.name], [job.label], [job.pipeline, job.name], [job.pipeline, job.label])
            if named and (at or (parts[at + 1 : at + 2] and parts[at + 1] in node.draft.groups[parts[at]])):
                found.append((job.key, key))
        elif len(parts) > 1 and parts[0] in _ops(node):
            found.append((job.key, f"dj_configs.process.{name}"))
    return tuple(found)


def _ops(node: Node) -> list[str]:
    process = node.draft.groups["dj_configs"].get("process")
    return (
        [next(iter(entry)) for entry in process if isinstance(entry, Mapping) and entry]
        if isinstance(process, list)
        else []
    )


def _parameter(name: str, written: Any, places: tuple[tuple[str, str], ...]) -> Parameter | str:
    """The parameter, or what is wrong with it."""
    if not isinstance(written, Mapping):
        return "is no mapping with value, values, or min and max"
    try:
        keys = _Parameter.model_validate(dict(written))
    except ValidationError as error:
        return "; ".join(f"{key}: {text}" for key, text in each(error))
    if "value" in written:
        return Parameter(name, places, "values", (keys.value,))
    if keys.values is not None:
        chances = tuple(keys.probabilities or ())
        if not keys.values or (chances and (len(chances) != len(keys.values) or min(chances) < 0 or sum(chances) <= 0)):
            return "values and probabilities: one chance for each of at least one value"
        return Parameter(name, places, "values", tuple(keys.values), chances)
    return _between(name, keys, places)


def _between(name: str, keys: _Parameter, places: tuple[tuple[str, str], ...]) -> Parameter | str:
    whole = isinstance(keys.min, int) and isinstance(keys.max, int)
    kind = keys.distribution or ("int_uniform" if whole else "uniform")
    if kind not in DISTRIBUTIONS:
        return f"distribution {kind!r} is none of {', '.join(DISTRIBUTIONS)}"
    step = (keys.q or 1.0) if kind.startswith("q_") else None
    if kind in NORMAL:
        low, high = keys.mu, keys.sigma
        return Parameter(name, places, "lognormal" if "log" in kind else "normal", low=low, high=high, step=step)
    if keys.min is None or keys.max is None:
        return "needs value, values, or min and max"
    low, high = float(keys.min), float(keys.max)
    if kind in ("log_uniform", "q_log_uniform"):  # W&B: of exponents
        low, high = math.exp(low), math.exp(high)
    if not low < high or ("log" in kind and low <= 0) or not math.isfinite(high - low):
        return "min lies below max" + (", and above 0" if "log" in kind else "")
    if kind in WHOLE and not whole:
        return "int_uniform needs whole numbers as min and max"
    return Parameter(
        name, places, "whole" if kind in WHOLE else "log" if "log" in kind else "uniform", low=low, high=high, step=step
    )


def _wrong_search(file: _File, parameters: Sequence[Parameter]) -> Iterator[Problem]:
    if file.method == "grid":
        for p in parameters:
            if p.kind not in ("values", "whole") and p.step is None:
                yield Problem("", f"hpo_config.parameters.{p.name}", "method grid needs values, or whole numbers")
    elif file.sweep_max_count is None and file.run_cap is None:
        yield Problem(
            "", "hpo_config.sweep_max_count", f"method {file.method} never ends by itself; say how many variants"
        )


def _wrong_metric(name: str, nodes: Sequence[Node]) -> Iterator[Problem]:
    parts = name.split(".")
    jobs = [n.job for n in nodes]
    by_pipeline = any([j.pipeline, j.name] == parts[:2] and len(parts) > 2 for j in jobs)
    if not by_pipeline and not any(j.name == parts[0] for j in jobs):
        names = ", ".join(dict.fromkeys(j.name for j in jobs))
        text = f"{name} begins with no job's name; write NAME.KEY or PIPELINE.NAME.OUTPUT, with a NAME of {names}"
        yield Problem("", "hpo_config.metric.name", text)
