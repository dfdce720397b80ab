"""A configuration from file to end: read, checked, its database opened, its jobs run or its sweep searched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.base import scratch
from engine.base.amounts import parse_budget
from engine.base.confine import refuse_links
from engine.base.errors import DjsbError
from engine.base.ids import content_id, json_text
from engine.base.paths import DATABASE, STATE_FOLDER
from engine.data import fingerprints
from engine.journal import jobs
from engine.journal.jobs import PipelineRun
from engine.journal.store import Store, now
from engine.pipeline.check import Node, check
from engine.pipeline.configuration import Configuration, PipelineError, Problem, read
from engine.pipeline.run import Engine, Options, OutOfBudget
from engine.pipeline.sweep_file import read_sweep
from engine.study.lock import EngineLock

How = Literal["done", "budget"]


@dataclass(frozen=True)
class Ended:
    """How a run ended. run: its id. work: the folder with its database."""

    run: str
    work: Path
    how: How
    note: str
    iterations: int


@dataclass(frozen=True)
class Checked:
    """A configuration, its graph and what is wrong with it."""

    configuration: Configuration
    root: Path
    nodes: list[Node]
    problems: list[Problem]

    @property
    def work(self) -> Path:
        """The folder of its own files."""
        return (self.root / Path(self.configuration.work_dir).expanduser()).resolve()

    @property
    def run(self) -> str:
        """The id of its run: the same file in the same place is gone on with."""
        return content_id([str(self.configuration.file.resolve()), str(self.root)])


def checked(file: Path, root: Path) -> Checked:
    """Read and check a configuration; nothing is run or written. root: what relative paths start from."""
    root = root.resolve()
    configuration, problems = read(file, root)
    nodes, more = check(configuration, root)
    if configuration.hpo is not None:
        _, wrong = read_sweep(configuration.hpo, root, nodes)
        more += wrong
    return Checked(configuration, root, nodes, [*problems, *more])


def start(
    file: Path, root: Path, *, budget: str | None = None, workers: int | None = None, allow_install: bool = False,
    again: Iterable[str] = (), tell: Callable[[str], None] = print,
) -> Ended:  # fmt: skip
    """Run a configuration, or go on with it. again: jobs to run anew, with all that hangs on them.

    Raises: PipelineError before anything runs; DjsbError when a job fails; KeyboardInterrupt.
    """
    found = checked(file, root)
    if found.problems:
        raise PipelineError(str(file), found.problems)
    budget = budget or found.configuration.budget
    limit = None if budget is None else parse_budget(budget)
    state = found.work / STATE_FOLDER
    state.mkdir(parents=True, exist_ok=True)
    refuse_links(found.work, STATE_FOLDER)
    with EngineLock(state), Store(state / DATABASE) as store:
        scratch.sweep(state / "tmp")
        fingerprints.keep_in(store)
        _record(store, found)
        forget_from(store, found.run, again)
        options = Options(found.root, found.work, workers, allow_install, limit, tell)
        engine = Engine(store, found.run, found.configuration, found.nodes, options)
        return _end(store, found, engine)


def _record(store: Store, found: Checked) -> None:
    c = found.configuration
    config = json_text({"jobs": [job.key for job in c.jobs], "work_dir": c.work_dir, "seeds": c.seeds, "hpo": c.hpo})
    source = str(c.file.resolve())
    folder = str(found.root)
    run = PipelineRun(found.run, source, c.project, c.experiment, config, "running", None, now(), folder=folder)
    jobs.begin_run(store, run)


def _end(store: Store, found: Checked, engine: Engine) -> Ended:
    """Run to the end, and record how it ended."""
    how, note, count, state = "done", "", 0, "failed"
    try:
        if found.configuration.hpo is None:
            count = engine.iterate(0, {})
        else:
            from engine.pipeline.sweep import search  # start-up time: Optuna

            count, note = search(engine, found.configuration.hpo)
        state = "done"
    except OutOfBudget as error:
        how, note, state = "budget", str(error), "budget"
    except DjsbError as error:
        note = str(error)
        raise
    except BaseException:
        state, note = "stopped", "interrupted; the same command goes on"
        raise
    finally:
        jobs.end_run(store, found.run, state, note)
    return Ended(found.run, found.work, "budget" if how == "budget" else "done", note, count)


def forget_from(store: Store, run: str, again: Iterable[str]) -> int:
    """Drop the results of these jobs, and of all that need them; how many. Raises: PipelineError for no such job."""
    rows = jobs.jobs_of(store, run)
    gone = set(again)
    for key in gone:
        if key not in {row.key for row in rows}:
            raise PipelineError("--again", [Problem("", key, "is no job that has run; give PIPELINE.NAME")])
    for row in rows:  # in the order of their run
        if gone & set(row.needs):
            gone.add(row.key)
    return jobs.forget(store, {row.result for row in rows if row.key in gone and row.result})
