"""A pipeline's run: job after job, iteration after iteration. What has finished is not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from engine.base import scratch
from engine.base.amounts import format_seconds
from engine.base.gpus import gpus
from engine.base.problems import each
from engine.journal import costs, jobs
from engine.journal.jobs import JobResult, JobRow
from engine.journal.store import Store
from engine.pipeline import process, results, values
from engine.pipeline.check import Node, Source, output_names
from engine.pipeline.configuration import Configuration, PipelineError, Problem, Target
from engine.pipeline.contract import ComponentError
from engine.pipeline.hooks import EVALUATE_MODEL, INFER, MODEL_PROBE, TRAIN
from engine.pipeline.settings import drafted, in_folder, put

ATTEMPTS = 2  # of a job whose process died
ON_DEVICES = (TRAIN, INFER, EVALUATE_MODEL, MODEL_PROBE)  # hooks whose jobs may take all GPUs
HOLDS: dict[str, Callable[[float, float], bool]] = {
    "==": lambda a, b: a == b, ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}  # fmt: skip


class OutOfBudget(Exception):
    """No job may start, or go on. `str` says which."""


@dataclass(frozen=True)
class Options:
    """How a run is done. limit: device-seconds that may be spent in all, None without a limit."""

    root: Path
    work: Path
    workers: int | None = None
    allow_install: bool = False
    limit: float | None = None
    tell: Callable[[str], None] = print


@dataclass
class Engine:
    """Runs the jobs of one configuration. Only this process writes them."""

    store: Store
    run: str
    configuration: Configuration
    nodes: Sequence[Node]
    options: Options
    results: dict[tuple[str, int], JobResult] = field(default_factory=dict)  # of this iteration: (job, seed) → result

    def iterate(
        self, variant: int, local: Mapping[str, Mapping[str, Any]], ended: Callable[[int], bool] = lambda _: False
    ) -> int:
        """Run iterations until the targets hold or there are enough; how many. ended: says so, too.

        Raises: DjsbError when a job fails; OutOfBudget.
        """
        configuration = self.configuration
        number = 0
        updated: dict[str, dict[str, Any]] = {}
        while True:
            number += 1
            here = {key: {**local.get(key, {}), **updated.get(key, {})} for key in {*local, *updated}}
            self.once(variant, number, here)
            reached = [self._holds(target) for target in configuration.targets]
            enough = bool(reached) and (all(reached) if configuration.mode == "all" else any(reached))
            if enough:
                said = ", ".join(t.text for t, holds in zip(configuration.targets, reached, strict=True) if holds)
                self.store.event("iteration", f"iteration {number} reached {said}", self.run)
            if ended(number) or enough or number == configuration.max_iterations:
                jobs.forget_after(self.store, self.run, variant, number)
                return number
            updated = self._updated()

    def once(self, variant: int, iteration: int, local: Mapping[str, Mapping[str, Any]]) -> None:
        """Run all jobs once, in order."""
        self.results = {}
        rows = {(node.job.key, seed): self._row(node, variant, iteration, seed)
                for node in self.nodes for seed in self.seeds(node)}  # fmt: skip
        jobs.plan(self.store, list(rows.values()))
        for node in self.nodes:
            own = {**self._added(node), **local.get(node.job.key, {})}
            for seed in self.seeds(node):
                row = rows[node.job.key, seed]
                self.results[node.job.key, seed] = self._do(node, row, own)
                if node.component.over_seeds:
                    self._score(node, row, own)

    def _added(self, node: Node) -> dict[str, Any]:
        """What `control: true` of the configuration adds to a job's settings."""
        fields = getattr(node.component.settings.model_fields["extra_configs"].annotation, "model_fields", {})
        return {"extra_configs.control": True} if self.configuration.control and "control" in fields else {}

    def seeds(self, node: Node) -> range:
        """At which seeds a job is run."""
        return range(self.configuration.seeds if node.repeated else 1)

    def _row(self, node: Node, variant: int, iteration: int, seed: int) -> JobRow:
        job = node.job
        return JobRow(
            self.run, variant, iteration, job.pipeline, job.place, seed, job.label, job.phase, job.hook,
            node.component.name, after=json.dumps(node.after, allow_nan=False),
            outputs=json.dumps(output_names(job, node.component), allow_nan=False),
        )  # fmt: skip

    def result_of(self, key: str, seed: int) -> JobResult:
        """What a job gave at a seed; one that is not repeated gave it at the first."""
        return self.results[key, seed] if (key, seed) in self.results else self.results[key, 0]

    def value(self, source: Source, seed: int) -> Any:
        """The value of an input. Raises: ComponentError when it holds no such key."""
        content = values.decode(self.result_of(source.job.key, seed).outputs[source.place])
        try:
            return values.unpacked(values.within(content, source.rest))
        except KeyError as error:
            raise ComponentError(f"{source.job.key}: its output has no {error.args[0]!r}; check the input") from None

    def _do(self, node: Node, row: JobRow, local: Mapping[str, Any]) -> JobResult:
        """Run a job, unless its result stands."""
        root, seed = self.options.root, row.seed
        try:
            draft, problems = drafted(node.job, root, self._inputs(node, seed), row.iteration, local)
            for key in node.component.write_keys if seed else ():
                if (old := draft.get(key)) is not None:
                    put(draft.groups, key, in_folder(old, f"seed_{seed}"))
            problems += _wrong(node, draft.groups)
            if problems:
                raise ComponentError("; ".join(map(str, problems)))
            needs = [self.result_of(key, seed).result for key in node.after]
            key = results.result_id(node, draft, seed, needs, root)
        except Exception as error:
            jobs.failed(self.store, row, str(error))
            raise
        settings = values.encode(dict(draft.groups), node.job.key)
        row = jobs.save(self.store, replace(row, result=key, settings=settings))
        there = jobs.result(self.store, key)
        if there and results.stands(jobs.files_of(there.files)):
            jobs.finished(self.store, row, there, reused=True)
            self.options.tell(f"{node.job.key}: finished before")
            return there
        return self._run(node, row, draft, key)

    def _inputs(self, node: Node, seed: int) -> dict[str, Any]:
        """The values of a job's inputs at a seed; of a job over seeds their mean."""
        if not node.component.over_seeds:
            return {key: self.value(source, seed) for key, source in node.inputs.items()}
        every = range(self.configuration.seeds)
        return {key: values.mean([self.value(source, one) for one in every]) for key, source in node.inputs.items()}

    def _score(self, node: Node, row: JobRow, local: Mapping[str, Any]) -> None:
        """Note what the pools that a job ranks were evaluated to, at each seed."""
        scored = []
        for seed in range(self.configuration.seeds):
            inputs = {key: self.value(source, seed) for key, source in node.inputs.items()}
            draft, _ = drafted(node.job, self.options.root, inputs, row.iteration, local)
            for pool, metrics in node.component.scores(draft.groups).items():
                scored += [(pool, seed, name, value) for name, value in metrics.items()]
            if not any(source_node.repeated for source_node in self.nodes if source_node.job.key in node.after):
                break
        jobs.put_scores(self.store, row, scored)

    def _run(self, node: Node, row: JobRow, draft: Any, key: str) -> JobResult:
        job = node.job.key
        self._afford(node)
        while True:
            row = jobs.started(self.store, row)
            self.options.tell(f"{job}{f' (seed {row.seed})' if node.repeated and self.configuration.seeds > 1 else ''}")
            try:
                answer, seconds = self._in_process(node, row, draft, key)
                break
            except process.Lost as error:
                self.store.event("job", f"{job}: {error}", key, "warning")
                if row.attempts >= ATTEMPTS:
                    self._fail(row, f"{job}: {error}, twice; see its log")
            except process.Refused as error:
                self._fail(row, str(error) if str(error).startswith(job) else f"{job}: {error}")
            except BaseException as error:  # the budget is spent, or the engine is interrupted
                jobs.save(self.store, replace(row, state="WAITING", started=None))
                if isinstance(error, process.Spent):
                    raise OutOfBudget(f"{job} was ended, as the budget is spent") from None
                raise
        outputs = [values.decode(text) for text in answer["outputs"]]
        files = results.written(node, draft, outputs, self.options.root)
        stored = json.dumps(files, allow_nan=False)
        result = JobResult(key, node.component.name, seconds, answer["tracked"], stored, tuple(answer["outputs"]))
        jobs.finished(self.store, row, result, reused=False)
        self.store.renew_copy()
        return result

    def _fail(self, row: JobRow, error: str) -> None:
        """Raises: ComponentError."""
        jobs.failed(self.store, row, error)
        self.store.event("job", error, row.result, "error")
        raise ComponentError(error)

    def _in_process(self, node: Node, row: JobRow, draft: Any, key: str) -> tuple[dict[str, Any], float]:
        options = self.options
        devices = max(1, len(gpus())) if node.job.hook in ON_DEVICES else 1
        charge = f"job:{key}:{row.attempts}"
        while costs.get(self.store, charge):
            charge += ":a"  # an attempt of an earlier engine

        def charged(seconds: float) -> bool:
            costs.charge(self.store, charge, "job", seconds * devices)
            return options.limit is None or costs.total(self.store) < options.limit

        listener = process.Listener(
            lines=lambda texts: jobs.add_lines(self.store, key, texts),
            points=lambda points: jobs.add_points(self.store, key, points),
            charge=charged,
        )
        with scratch.scratch(options.work / ".djsb" / "tmp") as folder:
            order = {
                "hook": node.job.hook, "type": node.component.name, "module": type(node.component).__module__,
                "job": node.job.key, "root": str(options.root),
                "work": str(options.work), "scratch": str(folder), "answer": str(folder / "answer.json"),
                "seed": row.seed, "workers": options.workers, "allow_install": options.allow_install,
                "groups": values.encode(dict(draft.groups), node.job.key),
                "tracked": values.encode(self._tracked(node, row.seed), node.job.key),
            }  # fmt: skip
            more = (draft.groups.get("extra_configs") or {}).get(node.component.environ_key) or ()
            return process.run_job(order, [*node.component.environ, *map(str, more)], listener)

    def _tracked(self, node: Node, seed: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in node.tracked:
            content = values.decode(self.result_of(key, seed).tracked)
            found |= content if isinstance(content, dict) else {"value": content}
        return found

    def _afford(self, node: Node) -> None:
        """Raises: OutOfBudget when the job would surely not fit into what is left."""
        limit = self.options.limit
        if limit is None:
            return
        left = limit - costs.total(self.store)
        took = jobs.durations(self.store, node.component.name)
        needs = fmean(took[-3:]) if took else 0.0
        if left <= needs:
            about = f"; jobs of {node.component.name} take about {format_seconds(needs)}" if needs else ""
            raise OutOfBudget(f"{node.job.key} does not fit into {format_seconds(max(0.0, left))} that are left{about}")

    def _holds(self, target: Target) -> bool:
        return HOLDS[target.op](self.measured(target.key, f"iter_targets ({target.text})"), target.number)

    def measured(self, key: str, where: str) -> float:
        """The number that an output is, its mean over the seeds. Raises: PipelineError when it is none."""
        sources = _sources(self.nodes, key)
        found = [self.value(source, seed) for source, node in sources[-1:] for seed in self.seeds(node)]
        numbers = [values.number(value) for value in found]
        if not numbers or None in numbers:
            shown = repr(found[0])[:80] if found else "nothing"
            raise PipelineError(
                str(self.configuration.file), [Problem("", where, f"{key} is {shown}, no finite number")]
            )
        return fmean(n for n in numbers if n is not None)

    def _updated(self) -> dict[str, dict[str, Any]]:
        """Job → local settings of the next iteration."""
        found: dict[str, dict[str, Any]] = {}
        for key, goal in self.configuration.updater.items():
            pipeline, name, target = goal.split(".", 2)
            for source, _ in _sources(self.nodes, key)[-1:]:
                for node in self.nodes:
                    if (node.job.pipeline, node.job.name) == (pipeline, name):
                        found.setdefault(node.job.key, {})[target] = self.value(source, 0)
        return found


def _wrong(node: Node, groups: Mapping[str, Any]) -> list[Problem]:
    try:
        node.component.settings.model_validate(dict(groups))
    except ValidationError as error:
        return [Problem(node.job.key, key, text) for key, text in each(error)]
    return []


def _sources(nodes: Sequence[Node], reference: str) -> list[tuple[Source, Node]]:
    """The outputs that `PIPELINE.NAME.OUTPUT` names, in the order of their jobs."""
    pipeline, name, output, *rest = reference.split(".")
    found = []
    for node in nodes:
        if node.job.pipeline == pipeline and name in (node.job.name, node.job.label):
            names = output_names(node.job, node.component)
            numbered = {f"res_{i + 1}": i for i in range(len(names))} | {n: i for i, n in enumerate(names)}
            if output in numbered:
                found.append((Source(node.job, numbered[output], tuple(rest)), node))
    return found
