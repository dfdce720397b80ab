"""A pipeline checked whole before anything runs: what each job runs, needs, reads and writes, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.base.plugins import PluginError
from engine.base.problems import each
from engine.data.readers.pool_rows import rows_file
from engine.pipeline.configuration import Configuration, Job, Problem
from engine.pipeline.contract import GROUPS, Component, Draft
from engine.pipeline.registry import component_of, types_of
from engine.pipeline.settings import drafted, put


@dataclass(frozen=True)
class Source:
    """Where an input comes from: an output of a job, by its place, and dotted keys within it."""

    job: Job
    place: int
    rest: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A job in the graph. inputs: dotted key → source. after: jobs that it needs, by key. tracked: jobs whose tracked
    results it reads. kept: pools that it reads, that no earlier job writes, and of which only the row numbers are
    there. repeated: it is run at every seed.
    """

    job: Job
    component: Component[Any]
    draft: Draft
    inputs: Mapping[str, Source]
    after: tuple[str, ...]
    tracked: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    kept: tuple[str, ...]
    repeated: bool


def output_names(job: Job, component: Component[Any]) -> list[str]:
    """What a job's outputs are called: as the user says, else res_1, res_2, …"""
    own = job.output or ()
    return [own[i] if i < len(own) else f"res_{i + 1}" for i in range(len(component.gives))]


def check(
    configuration: Configuration, root: Path, local: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[Node], list[Problem]]:
    """The graph in the order of its run, and what is wrong. local: settings of a sweep, by job."""
    problems: list[Problem] = []
    components = {job.key: c for job in configuration.jobs if (c := _component(job, root, problems))}
    nodes: list[Node] = []
    for number, job in enumerate(configuration.jobs):
        if component := components.get(job.key):
            finder = _Finder(configuration.jobs, number, components)
            nodes.append(_node(job, component, finder, nodes, root, (local or {}).get(job.key), problems))
    problems += _cycles(configuration.jobs, components)
    problems += _files(nodes, configuration, root)
    problems += _iterations(configuration, components)
    return nodes, problems


def _component(job: Job, root: Path, problems: list[Problem]) -> Component[Any] | None:
    draft, _ = drafted(job, root, {}, 1, later=frozenset(job.input))
    kind = draft.get("extra_configs.type")
    try:
        component = component_of(job.hook, kind if isinstance(kind, str) else None)
    except PluginError as error:
        problems.append(Problem(job.key, "extra_configs.type", str(error)))
        return None
    if component is None:
        types = ", ".join(types_of(job.hook)) or "none yet"
        key = "extra_configs.type" if types_of(job.hook) else "hook"
        said = f"{kind!r} is no type of {job.hook}" if kind else f"{job.hook} needs a type"
        other = "; for another, pip install the package whose plug-in it is (djsb plugins)" if kind else ""
        problems.append(Problem(job.key, key, f"{said}; there are {types}{other}"))
    return component


@dataclass(frozen=True)
class _Finder:
    """Finds the job that a key of an input names, seen from one job."""

    jobs: Sequence[Job]
    number: int  # of the job that asks; all of them are seen from the end
    components: Mapping[str, Component[Any]]

    def find(self, reference: str) -> Source | str:
        """The source of `PIPELINE.NAME.OUTPUT` or `-1.OUTPUT`, or what is wrong with it.

        Empty where a job that cannot be run may give it: what is wrong with that job is told there.
        """
        parts = reference.split(".")
        if parts[0] == "-1":
            earlier = [j for j in self.jobs[: self.number] if self._gives(j)]
            last = earlier[-1].place if earlier else -1
            if any(j.key not in self.components for j in self.jobs[last + 1 : self.number]):
                return ""
            if not earlier:
                return "no job before it gives outputs"
            return self._output(earlier[-1], parts[1:])
        if len(parts) < 3:
            return "is not PIPELINE.NAME.OUTPUT, nor -1.OUTPUT"
        named = [j for j in self.jobs if (j.pipeline, j.name) == (parts[0], parts[1]) or j.key == ".".join(parts[:2])]
        if not named:
            return self._nobody(parts)
        earlier = [j for j in named if self.jobs.index(j) < self.number]
        if not earlier:
            own = self.number < len(self.jobs) and self.jobs[self.number] in named
            return "is the job itself" if own else f"{named[0].key} runs only after it; move it before"
        answers = [self._output(j, parts[2:]) for j in reversed(earlier)]
        return next((a for a in answers if isinstance(a, Source)), answers[0])

    def _gives(self, job: Job) -> bool:
        return job.key in self.components and bool(self.components[job.key].gives)

    def _output(self, job: Job, parts: list[str]) -> Source | str:
        component = self.components.get(job.key)
        if component is None:
            return ""
        names = output_names(job, component)
        if not parts or not parts[0]:
            return f"names no output of {job.key}; it gives {', '.join(names) or 'none'}"
        numbered = [f"res_{i + 1}" for i in range(len(names))]
        counted = [str(i) for i in range(len(names))]
        for known in (names, numbered, counted):
            if parts[0] in known:
                return Source(job, known.index(parts[0]), tuple(parts[1:]))
        return f"{job.key} gives {', '.join(names) or 'no output'}, not {parts[0]}"

    def _nobody(self, parts: list[str]) -> str:
        pipelines = list(dict.fromkeys(j.pipeline for j in self.jobs))
        if parts[0] not in pipelines:
            return f"there is no pipeline {parts[0]}; there are {', '.join(pipelines)}"
        names = dict.fromkeys(j.name for j in self.jobs if j.pipeline == parts[0])
        return f"pipeline {parts[0]} has no job {parts[1]}; it has {', '.join(names)}"


def _node(
    job: Job, component: Component[Any], finder: _Finder, earlier: Sequence[Node], root: Path,
    local: Mapping[str, Any] | None, problems: list[Problem],
) -> Node:  # fmt: skip
    inputs: dict[str, Source] = {}
    for key, reference in job.input.items():
        source = finder.find(reference) if isinstance(reference, str) else "is no reference"
        if isinstance(source, Source):
            inputs[key] = source
        elif source:
            problems.append(Problem(job.key, f"input.{key}", f"{reference}: {source}"))
    draft, wrong = drafted(job, root, {}, 1, local, frozenset(job.input))
    problems += wrong
    problems += [Problem(job.key, key, text) for key, text in _wrong_keys(component, draft)]
    if job.output and len(job.output) > len(component.gives):
        gives = f"{len(component.gives)} output(s)" + (f": {', '.join(component.gives)}" if component.gives else "")
        problems.append(Problem(job.key, "output", f"names {len(job.output)}, and {component.name} gives {gives}"))
    if not wrong:
        problems += [Problem(job.key, key, text) for key, text in component.check(draft)]
    tracked = [n.job.key for n in earlier if n.component.tracks and n.job.name == job.name]
    if component.needs_tracked and not tracked:
        text = f"{component.name} needs an earlier job of the same name that analyses; there is no {job.name}"
        problems.append(Problem(job.key, "meta_name", text))
    reads, writes = component.reads(draft), component.writes(draft)
    kept = [path for path in reads if rows_of(path, root) and not writers(earlier, path, root)]
    after = {source.job.key for source in inputs.values()} | set(tracked if component.needs_tracked else ())
    after |= {n.job.key for path in reads for n in writers(earlier, path, root)}
    ordered = tuple(n.job.key for n in earlier if n.job.key in after)
    hangs = any(n.repeated for n in earlier if n.job.key in after)
    repeated = not component.over_seeds and (component.seeded or hangs)
    return Node(
        job, component, draft, inputs, ordered, tuple(tracked) if component.needs_tracked else (), tuple(reads),
        tuple(writes), tuple(kept), repeated,
    )  # fmt: skip


def _wrong_keys(component: Component[Any], draft: Draft) -> Iterator[tuple[str, str]]:
    """What the types say, but of values that come later."""
    trial = {name: dict(draft.groups[name]) for name in GROUPS}
    for key in draft.later:  # a key that comes later need not stand there
        if key not in GROUPS and draft.groups and not _has(trial, key):
            put(trial, key, "")
    try:
        component.settings.model_validate(trial)
    except ValidationError as error:
        for key, text in each(error):
            if not draft.is_later(key):
                yield key, text


def _has(groups: Mapping[str, Any], key: str) -> bool:
    value: Any = groups
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def absolute(path: str, root: Path) -> str:
    """A path of the settings, without `..` and links unresolved."""
    return os.path.normpath(root / Path(path).expanduser())


def rows_of(path: str, root: Path) -> Path | None:
    """Where the row numbers of a pool are, where they are all that is there of it."""
    pool = Path(absolute(path, root))
    return rows_file(pool) if not pool.exists() and rows_file(pool).is_file() else None


def writers(earlier: Iterable[Node], path: str, root: Path) -> list[Node]:
    """Earlier jobs that write what is read: the last that writes just this path, else all that write above or below."""
    read = absolute(path, root)
    exact: list[Node] = []
    about: list[Node] = []
    for node in earlier:
        for name in node.writes:
            written = absolute(name, root)
            if written == read:
                exact = [node]
            elif read.startswith(written + os.sep) or written.startswith(read + os.sep):
                about.append(node)
    return exact or about


def _files(nodes: Sequence[Node], configuration: Configuration, root: Path) -> Iterator[Problem]:
    """Files that are missing, and files that must not be written."""
    own = absolute(str(configuration.file), root)
    for number, node in enumerate(nodes):
        for path in node.reads:
            if path in node.kept or writers(nodes[:number], path, root) or Path(absolute(path, root)).exists():
                continue
            later = [n.job.key for n in writers(nodes[number + 1 :], path, root)]
            reason = f"{later[0]} writes it only after that; move it before" if later else "check the path"
            yield Problem(node.job.key, _key_of(node, path), f"{path} is not there; {reason}")
        for path in node.writes:
            if absolute(path, root) in {own, *(absolute(read, root) for read in node.reads)}:
                yield Problem(node.job.key, _key_of(node, path), f"{path} is what it reads; write elsewhere")
        if configuration.seeds > 1 and node.repeated:
            for path in node.reads:
                if any(n.repeated for n in writers(nodes[:number], path, root)):
                    text = f"{path} has another form at each of the {configuration.seeds} seeds; take it by input"
                    yield Problem(node.job.key, _key_of(node, path), text)


def _key_of(node: Node, path: str) -> str:
    """The key that a path stands under, as far as that can be said."""

    def look(value: Any, key: str) -> str | None:
        if value == path:
            return key
        entries: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            entries = value.items()
        elif isinstance(value, list):
            entries = enumerate(value)
        return next((k for name, one in entries if (k := look(one, f"{key}.{name}" if key else str(name)))), None)

    return look(node.draft.groups, "") or "files"


def _cycles(jobs: Sequence[Job], components: Mapping[str, Component[Any]]) -> Iterator[Problem]:
    """Jobs that wait for each other."""
    needs: dict[str, list[str]] = {}
    everywhere = _Finder(jobs, len(jobs), components)
    for job in jobs:
        references = [r for r in job.input.values() if isinstance(r, str) and not r.startswith("-1.")]
        sources = [everywhere.find(reference) for reference in references]
        needs[job.key] = [s.job.key for s in sources if isinstance(s, Source)]
    for start in needs:
        path, queue = {start: ""}, [start]
        while queue:
            here = queue.pop(0)
            for other in needs[here]:
                if other == start:
                    way = [here]
                    while way[-1] != start:
                        way.append(path[way[-1]])
                    if start == min(way):  # told once
                        yield Problem(start, "input", f"a cycle: {' ← '.join([*way, way[0]])}")
                    queue.clear()
                    break
                if other not in path:
                    path[other] = here
                    queue.append(other)


def _iterations(configuration: Configuration, components: Mapping[str, Component[Any]]) -> Iterator[Problem]:
    """Targets and updaters that name nothing."""
    finder = _Finder(configuration.jobs, len(configuration.jobs), components)
    for target in configuration.targets:
        if isinstance(source := finder.find(target.key), str) and source:
            yield Problem("", f"iter_targets ({target.text})", source)
    for key, goal in configuration.updater.items():
        if isinstance(source := finder.find(key), str) and source:
            yield Problem("", f"iter_updater.{key}", source)
        parts = goal.split(".")
        jobs = [j for j in configuration.jobs if [j.pipeline, j.name] == parts[:2]]
        if len(parts) < 3 or parts[2] not in GROUPS or not jobs:
            reason = "names no job" if not jobs else f"is not PIPELINE.NAME.{'|'.join(GROUPS)}.KEY"
            yield Problem("", f"iter_updater.{key}", f"{goal} {reason}")
