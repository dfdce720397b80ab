"""A configuration of Data-Juicer Sandbox: what it says, read whole. All that is wrong with it is told at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from engine.base.errors import DjsbError
from engine.base.problems import each
from engine.base.yaml_text import NotYaml, parse_yaml, read_utf8
from engine.pipeline.contract import GROUPS
from engine.pipeline.hooks import HOOKS

PHASES = ("probe_job_configs", "refine_recipe_job_configs", "execution_job_configs", "evaluation_job_configs")
ALONE, NAMELESS = "anonymous", "anonymous_meta_name"
JOBS = 1000
_TARGET = re.compile(r"\s*(?P<key>\S+?)\s*(?P<op>==|>=|<=|>|<)\s*(?P<number>\S+)\s*")
_NAME = re.compile(r"[^.\s][^.]*")


class PipelineError(DjsbError):
    """A configuration cannot be run. `str` is one line; `problems` has a line for each."""

    def __init__(self, where: str, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        first = str(self.problems[0])
        more = f" (and {len(self.problems) - 1} more, djsb run --dry-run lists them)" if len(self.problems) > 1 else ""
        super().__init__(f"{where}: {first}{more}")


@dataclass(frozen=True)
class Problem:
    """What is wrong. job: PIPELINE.NAME, or empty for the whole. key: dotted, in the job or the whole."""

    job: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.job, self.key, self.text) if part)


@dataclass(frozen=True)
class Job:
    """A job as it is written. place: among all jobs, from 0. label: tells it from others of its name.

    dj, extra: a mapping, the path of a file, or None. output: names that the user gave; None where none are given.
    """

    pipeline: str
    place: int
    phase: str
    hook: str
    name: str
    label: str
    input: Mapping[str, str] = field(default_factory=dict)
    output: tuple[str, ...] | None = None
    local: Mapping[str, Any] = field(default_factory=dict)
    dj: Any = None
    extra: Any = None

    @property
    def key(self) -> str:
        """How people name it."""
        return f"{self.pipeline}.{self.label}"


@dataclass(frozen=True)
class Target:
    """A condition that ends the iterations."""

    text: str
    key: str
    op: str
    number: float


@dataclass(frozen=True)
class Configuration:
    """file: that it was read from. hpo: of a sweep file. max_iterations: 0 means until the targets hold.

    seeds, control, budget are djsb's additions: repetitions of what depends on a seed, a random pool beside the
    constructed ones, and the device time that may be spent.
    """

    file: Path
    project: str
    experiment: str
    work_dir: str
    resume: bool
    hpo: str | None
    jobs: tuple[Job, ...]
    max_iterations: int = 1
    targets: tuple[Target, ...] = ()
    mode: Literal["all", "any"] = "all"
    updater: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 1
    control: bool = False
    budget: str | None = None


def _listed(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


def _mapped(value: Any) -> Any:
    return {} if value is None else value


Names = Annotated[list[str], BeforeValidator(_listed)]
Map = Annotated[dict[str, Any], BeforeValidator(_mapped)]


class _Top(BaseModel):
    """The keys of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    project_name: str | None = None
    experiment_name: str | None = None
    work_dir: str = "./outputs/hello_world"
    resume: bool = False
    debug: bool = False
    hpo_config: str | None = None
    pipelines: list[dict[str, Any]] | None = None
    probe_job_configs: list[Any] | None = None
    refine_recipe_job_configs: list[Any] | None = None
    execution_job_configs: list[Any] | None = None
    evaluation_job_configs: list[Any] | None = None
    max_iter_num: int = Field(1, ge=0)
    iter_targets: Names = []
    iter_targets_mode: Literal["all", "any"] = "all"
    iter_updater: Map = {}
    seeds: int = Field(1, ge=1, le=100)
    control: bool = False
    budget: str | None = None


class _Job(BaseModel):
    """The keys of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hook: str
    meta_name: str | None = None
    input: Map = {}
    output: Names | None = None
    local: Map = {}
    dj_configs: dict[str, Any] | str | None = None
    extra_configs: dict[str, Any] | str | None = None


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises: NotYaml, OSError."""
    value = parse_yaml(read_utf8(path), str(path))
    if not isinstance(value, dict):
        raise NotYaml(f"{path} holds no mapping of keys to values")
    return value


def load(path: str, root: Path) -> dict[str, Any] | str:
    """The mapping in a file that a configuration names, or what is wrong with it."""
    try:
        return load_mapping(root / Path(path).expanduser())
    except (OSError, RuntimeError) as error:
        return f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); check the path"
    except NotYaml as error:
        return str(error)


def read(file: Path, root: Path) -> tuple[Configuration, list[Problem]]:
    """A configuration, and what is wrong with its form. root: folder that relative paths start from.

    Raises: PipelineError when the file is none at all; OSError.
    """
    problems: list[Problem] = []
    try:
        top = _Top.model_validate(load_mapping(file))
    except NotYaml as error:
        raise PipelineError(str(file), [Problem("", "", str(error))]) from None
    except ValidationError as error:
        raise PipelineError(str(file), _explained(error, "")) from None
    jobs: list[Job] = []
    for name, lists in _pipelines(top, problems):
        jobs += _jobs(name, lists, len(jobs), root, problems)
    if not jobs and not problems:
        problems.append(Problem("", "pipelines", "it has no job; give it pipelines, or the four lists of jobs"))
    targets = [t for text in top.iter_targets if (t := _target(text, problems))]
    if top.max_iter_num == 0 and not top.iter_targets:
        problems.append(Problem("", "iter_targets", "max_iter_num is 0 and there is no target, so it would never end"))
    for key, value in top.iter_updater.items():
        if not isinstance(value, str):
            problems.append(Problem("", f"iter_updater.{key}", "name the key that is updated: PIPELINE.NAME.GROUP.KEY"))
    updater = {key: value for key, value in top.iter_updater.items() if isinstance(value, str)}
    return Configuration(
        file, top.project_name or file.stem, top.experiment_name or "run", top.work_dir, top.resume, top.hpo_config,
        tuple(jobs), top.max_iter_num, tuple(targets), top.iter_targets_mode, updater, top.seeds, top.control,
        top.budget,
    ), problems  # fmt: skip


def _explained(error: ValidationError, job: str) -> list[Problem]:
    return [Problem(job, key, text) for key, text in each(error)]


def _pipelines(top: _Top, problems: list[Problem]) -> list[tuple[str, Mapping[str, Any]]]:
    own = {phase: getattr(top, phase) for phase in PHASES}
    if top.pipelines is None:
        return [(ALONE, own)]
    if any(own.values()):
        problems.append(Problem("", "pipelines", "stands beside lists of jobs; put those into a pipeline of their own"))
    pipelines: dict[str, Mapping[str, Any]] = {}
    for entry in top.pipelines:
        name = next(iter(entry), "")
        lists = entry.get(name) or {}
        if len(entry) != 1 or not isinstance(lists, dict):
            problems.append(
                Problem("", "pipelines", f"each entry is one name with its lists of jobs, not {list(entry)}")
            )
        elif name in pipelines or not _NAME.fullmatch(name):
            reason = "is there twice" if name in pipelines else "is no name: it may have no dot"
            problems.append(Problem("", f"pipelines.{name}", f"{reason}; give it another"))
        else:
            problems += [
                Problem("", f"pipelines.{name}.{key}", f"is no list of jobs; there are {', '.join(PHASES)}")
                for key in lists if key not in PHASES
            ]  # fmt: skip
            pipelines[name] = lists
    return list(pipelines.items())


def _jobs(pipeline: str, lists: Mapping[str, Any], first: int, root: Path, problems: list[Problem]) -> list[Job]:
    jobs: list[Job] = []
    names: dict[str, int] = {}
    for phase in PHASES:
        entries = lists.get(phase) or []
        if not isinstance(entries, list):
            problems.append(Problem("", f"{pipeline}.{phase}", "is no list of jobs"))
            continue
        for number, entry in enumerate(entries):
            if job := _job(pipeline, phase, number, entry, first + len(jobs), names, root, problems):
                jobs.append(job)
    return jobs


def _job(
    pipeline: str, phase: str, number: int, entry: Any, place: int, names: dict[str, int], root: Path,
    problems: list[Problem],
) -> Job | None:  # fmt: skip
    where = f"{pipeline}.{phase}[{number}]"
    content = load(entry, root) if isinstance(entry, str) else entry
    if not isinstance(content, dict):
        problems.append(Problem(where, "", content if isinstance(content, str) else "is no job: a mapping with hook"))
        return None
    try:
        read = _Job.model_validate(content)
    except ValidationError as error:
        problems += _explained(error, where)
        return None
    if read.hook not in HOOKS:
        problems.append(Problem(where, "hook", f"{read.hook!r} is no hook; there are {', '.join(HOOKS)}"))
        return None
    name = read.meta_name or NAMELESS
    if not _NAME.fullmatch(name):
        problems.append(Problem(where, "meta_name", f"{name!r} is no name: it may have no dot"))
        return None
    names[name] = names.get(name, 0) + 1
    label = name if names[name] == 1 else f"{name}#{names[name]}"
    job = Job(
        pipeline, place, phase, read.hook, name, label, read.input, None if not read.output else tuple(read.output),
        read.local, read.dj_configs, read.extra_configs,
    )  # fmt: skip
    problems += list(_wrong_in(job))
    return job


def _wrong_in(job: Job) -> Iterable[Problem]:
    for part, keys in (("input", job.input), ("local", job.local)):
        for key, value in keys.items():
            if key.split(".")[0] not in GROUPS:
                yield Problem(job.key, f"{part}.{key}", f"begins with neither {' nor '.join(GROUPS)}")
            if part == "input" and not isinstance(value, str):
                yield Problem(job.key, f"input.{key}", "names no output: PIPELINE.NAME.OUTPUT, or -1.OUTPUT")
    if job.output and len(set(job.output)) < len(job.output):
        yield Problem(job.key, "output", "names an output twice")


def _target(text: str, problems: list[Problem]) -> Target | None:
    match = _TARGET.fullmatch(text)
    try:
        number = float(match["number"]) if match else float("nan")
    except ValueError:
        number = float("nan")
    if match is None or number != number:
        problems.append(
            Problem("", "iter_targets", f"{text!r} is no target: PIPELINE.NAME.OUTPUT, one of == >= <= > <, a number")
        )
        return None
    return Target(text, match["key"], match["op"], number)
