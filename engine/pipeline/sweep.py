"""A search over a pipeline's parameters: each variant is a run with other settings. Optuna asks, the journal keeps."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from engine.base.errors import DjsbError
from engine.base.ids import content_id, json_text
from engine.journal import jobs
from engine.journal.jobs import SweepTrial
from engine.pipeline import values
from engine.pipeline.configuration import PipelineError, Problem
from engine.pipeline.run import Engine
from engine.pipeline.sweep_file import Parameter, Sweep, read_sweep

GRID = 10_000  # variants of a grid
STATES = {"COMPLETE": optuna.trial.TrialState.COMPLETE, "PRUNED": optuna.trial.TrialState.PRUNED,
          "FAIL": optuna.trial.TrialState.FAIL}  # fmt: skip


def search(engine: Engine, file: str) -> tuple[int, str]:
    """Run variants until there are enough; how many, and which is best. What has ended is not run again.

    Raises: PipelineError; DjsbError when every variant fails; OutOfBudget.
    """
    sweep, problems = read_sweep(file, engine.options.root, engine.nodes)
    if sweep is None or problems:
        raise PipelineError(file, problems)
    identity = content_id(repr(replace(sweep, most=None)))
    done = [t for t in jobs.sweep(engine.store, engine.run) if t.note == identity and t.state in STATES]
    for number, params in _asked(sweep, done, engine.run):
        if sweep.target is not None and any(_reaches(sweep, t.objective) for t in done):
            break
        done.append(_variant(engine, sweep, number, params, done, identity))
        failed = [t for t in done if t.state == "FAIL"]
        if len(failed) == len(done) >= 3:
            raise PipelineError(file, [Problem("", "", "the first three variants failed; djsb log says why")])
    best = _best(sweep, done)
    if best is None:
        return len(done), "no variant has a value"
    shown = ", ".join(f"{key} = {value}" for key, value in json.loads(best.params).items())
    return len(done), f"best {sweep.metric} {best.objective:.6g}, variant {best.variant}: {shown}"


def _reaches(sweep: Sweep, value: float | None) -> bool:
    return value is not None and sweep.target is not None and (
        value >= sweep.target if sweep.maximize else value <= sweep.target
    )  # fmt: skip


def _best(sweep: Sweep, done: list[SweepTrial]) -> SweepTrial | None:
    ended = [t for t in done if t.state == "COMPLETE" and t.objective is not None]
    sign = -1 if sweep.maximize else 1
    return min(ended, key=lambda t: (sign * (t.objective or 0.0), t.variant), default=None)


def _variant(
    engine: Engine, sweep: Sweep, number: int, params: Mapping[str, Any], done: list[SweepTrial], identity: str
) -> SweepTrial:
    """Run one; what came of it."""
    trial = SweepTrial(engine.run, number, json_text(params), "RUNNING", note=identity)
    jobs.put_trial(engine.store, trial)
    local: dict[str, dict[str, Any]] = {}
    for parameter in sweep.parameters:
        for job, key in parameter.places:
            local.setdefault(job, {})[key] = params[parameter.name]
    steps: list[float] = []
    stopped = False

    def ended(iteration: int) -> bool:
        nonlocal stopped
        steps.append(objective(engine, sweep.metric))
        last = iteration == engine.configuration.max_iterations
        stopped = not last and _is_behind(sweep, done, steps)
        return stopped

    try:
        engine.iterate(number, local, ended)
        state = "PRUNED" if stopped else "COMPLETE"
        trial = replace(trial, state=state, objective=steps[-1], steps=json_text(steps))
    except DjsbError as error:
        trial = replace(trial, state="FAIL", steps=json_text(steps))
        engine.store.event("sweep", f"variant {number} failed: {error}", engine.run, "warning")
    jobs.put_trial(engine.store, trial)
    engine.options.tell(f"variant {number}: {'failed' if trial.objective is None else f'{trial.objective:.6g}'}")
    return trial


def objective(engine: Engine, name: str) -> float:
    """The metric as it stands after an iteration: PIPELINE.NAME.OUTPUT, NAME.OUTPUT, or NAME.KEY of what was tracked.

    Raises: PipelineError when it is no finite number.
    """
    parts = name.split(".")
    where = f"metric {name}"
    for node in reversed(engine.nodes):
        if [node.job.pipeline, node.job.name] == parts[:2] and len(parts) > 2:
            return engine.measured(name, where)
        if node.job.name != parts[0]:
            continue
        found = [values.decode(engine.result_of(node.job.key, seed).tracked) for seed in engine.seeds(node)]
        numbers = [values.number(_dotted(one, parts[1:])) for one in found]
        if numbers and None not in numbers:
            return sum(n for n in numbers if n is not None) / len(numbers)
        if len(parts) > 1:
            try:
                return engine.measured(f"{node.job.pipeline}.{name}", where)
            except (PipelineError, DjsbError):
                continue  # another job of this name may have it
    raise PipelineError(str(engine.configuration.file), [Problem("", "hpo_config.metric.name", f"{name} is no number")])


def _dotted(value: Any, parts: list[str]) -> Any:
    try:
        return values.within(value, tuple(parts))
    except KeyError:
        return value.get(".".join(parts)) if isinstance(value, dict) else None


def _distribution(p: Parameter) -> BaseDistribution:
    if p.kind == "values":
        return CategoricalDistribution([json_text(value) for value in p.values])
    if p.kind == "whole":
        return IntDistribution(int(p.low), int(p.high))
    if p.kind in ("normal", "lognormal"):  # a search needs an end: ± 3 sigma, as good as all of it
        low, high = p.low - 3 * p.high, p.low + 3 * p.high
        return (
            FloatDistribution(math.exp(low), math.exp(high), log=True)
            if p.kind == "lognormal"
            else FloatDistribution(low, high)
        )
    return FloatDistribution(p.low, p.high, log=p.kind == "log", step=p.step if p.kind != "log" else None)


def _plain(p: Parameter, value: Any) -> Any:
    """A value of Optuna as it goes into the settings."""
    if p.kind == "values":
        return json.loads(value)
    if p.step is not None:
        rounded = round(value / p.step) * p.step
        return int(rounded) if p.step.is_integer() else rounded
    return value


def _back(p: Parameter, value: Any, distribution: BaseDistribution) -> Any:
    """A stored value as Optuna gave it, or the nearest that it could give."""
    if p.kind == "values":
        return json_text(value)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return type(distribution.low)(min(max(value, distribution.low), distribution.high))


def _asked(sweep: Sweep, done: list[SweepTrial], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, parameters) of the variants that are still to run, from 1. `done` grows as they end."""
    if sweep.method == "grid":
        yield from _grid(sweep, {t.variant for t in done})
        return
    variables = {p.name: _distribution(p) for p in sweep.parameters}
    while sweep.most is None or len(done) < sweep.most:
        number = 1 + max((t.variant for t in done), default=0)
        study = _study(sweep, done, name, number, variables)
        asked = study.ask(variables)
        chosen = {p.name: _plain(p, asked.params[p.name]) for p in sweep.parameters}
        if sweep.method == "random":
            chosen |= _by_chance(sweep, number)
        yield number, chosen


def _by_chance(sweep: Sweep, number: int) -> dict[str, Any]:
    """What has chances of its own, drawn by the number of the variant."""
    import numpy as np  # start-up time

    rng = np.random.default_rng(number)
    drawn: dict[str, Any] = {}
    for p in sweep.parameters:
        if p.chances:
            drawn[p.name] = p.values[int(rng.choice(len(p.values), p=np.array(p.chances) / sum(p.chances)))]
        elif p.kind in ("normal", "lognormal"):
            value = float(rng.normal(p.low, p.high))
            drawn[p.name] = _plain(p, math.exp(value) if p.kind == "lognormal" else value)
    return drawn


def _grid(sweep: Sweep, done: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    axes = [_axis(p) for p in sweep.parameters]
    count = math.prod(map(len, axes))
    if count > (sweep.most or GRID):
        count = sweep.most or GRID
    for number, point in enumerate(itertools.islice(itertools.product(*axes), count), 1):
        if number not in done:
            yield number, {p.name: value for p, value in zip(sweep.parameters, point, strict=True)}


def _axis(p: Parameter) -> list[Any]:
    if p.kind == "values":
        return list(p.values)
    step = p.step or 1.0
    count = int((p.high - p.low) / step + 1e-9) + 1
    return [_plain(replace(p, step=step), p.low + i * step) for i in range(count)]


def _study(
    sweep: Sweep, done: list[SweepTrial], name: str, number: int, variables: Mapping[str, BaseDistribution]
) -> optuna.Study:
    """The study as it stands, so that a search that was cut off goes on as if it had not been."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=number)
    if sweep.method == "bayes":
        sampler = optuna.samplers.GPSampler(seed=number, n_startup_trials=min(8, 2 + 2 * len(variables)))
    direction: Literal["minimize", "maximize"] = "maximize" if sweep.maximize else "minimize"
    study = optuna.create_study(study_name=name, sampler=sampler, direction=direction)
    for t in sorted(done, key=lambda t: t.variant):
        params = json.loads(t.params)
        study.add_trial(optuna.trial.create_trial(
            state=STATES[t.state], value=t.objective if t.state != "FAIL" else None,
            params={p.name: _back(p, params[p.name], variables[p.name]) for p in sweep.parameters},
            distributions=dict(variables),
        ))  # fmt: skip
    return study


def _is_behind(sweep: Sweep, done: list[SweepTrial], steps: list[float]) -> bool:
    """True when hyperband ends the variant after these iterations.

    It looks after min_iter, min_iter · eta, min_iter · eta² … iterations: of all variants that came so far, the best
    1 / eta go on.
    """
    if sweep.early is None:
        return False
    fewest, most, eta = sweep.early
    here, rung = len(steps), fewest
    while rung < here:
        rung *= eta
    if here != rung or here >= most:
        return False
    reached = [found[here - 1] for t in done if len(found := json.loads(t.steps)) >= here]
    ranked = sorted([*reached, steps[-1]], reverse=sweep.maximize)
    return steps[-1] not in ranked[: max(1, len(ranked) // eta)]
