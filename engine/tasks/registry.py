"""Name to task, and whether a study fits its task."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine import tasks
from engine.base import plugins
from engine.base.errors import StudyError
from engine.base.problems import explain
from engine.settings.search import STRATEGIES
from engine.settings.study import Study
from engine.tasks.contract import Outside, ScoresRows, Task, Traits, packing

# fields that some tasks use; one that the study's task does not use may not be set
SOME = (
    "lora", "vlm", "video", "distill", "command", "evaluation.benchmarks", "evaluation.label", "evaluation.prompts",
    "evaluation.sets", "train.crop",
    "model.checkpoint",
)  # fmt: skip


def task_names() -> list[str]:
    """The folders below `engine/tasks/` that hold a task; no task is imported."""
    return sorted(file.parent.name for folder in tasks.__path__ for file in Path(folder).glob("*/task.py"))


def task_named(name: str) -> Task:
    """The task of that name, djsb's or a plug-in's. Raises: StudyError when there is none, PluginError."""
    task: Task
    if name in task_names():
        task = import_module(f"engine.tasks.{name}.task").TASK
    elif given := plugins.plugin(plugins.TASKS, name):
        task = plugins.loaded(given, fault)
    else:
        raise StudyError(f"task: {plugins.missing(plugins.TASKS, name, task_names())}")
    return task


def fault(given: Any) -> str | None:
    """Why what a plug-in gives is no task, or None."""
    if not isinstance(getattr(given, "traits", None), Traits):
        return "has no traits of type Traits"
    return plugins.lacks(given, "lacks", "shares", "metrics", "inputs", "prepare", "run", "memory", "calibrate")


def get_task(study: Study) -> Task:
    """The study's task.

    Raises: StudyError when it has none.
    """
    if study.task is None:
        raise StudyError(
            "the study has no task, so nothing can be trained; set task to one of "
            f"{', '.join(task_names())} (docs/guides/tasks.md)"
        )
    return task_named(study.task)


def fitting_study(fields: object) -> Study:
    """The study of these fields, once its task says that they suit it.

    Raises: StudyError in one line that names the fields, as `explain` does.
    """
    try:
        study = Study.model_validate(fields)
    except ValidationError as error:
        raise StudyError(explain(error)) from None
    strategy = study.search.strategy
    if strategy not in STRATEGIES and plugins.plugin(plugins.PROPOSERS, strategy) is None:
        raise StudyError(f"search.strategy: {plugins.missing(plugins.PROPOSERS, strategy, STRATEGIES)}")
    if study.task is not None and (problem := misfit(study, get_task(study))):
        raise StudyError(f"study: {problem}")
    return study


def misfit(study: Study, task: Task) -> str | None:
    """Why the study's fields do not suit its task, in one line, or None."""
    for field in task.traits.needs:
        if not attrgetter(field)(study):
            if field == "evaluation.path":
                return f"task {study.task} needs evaluation.path: rows that are never trained on"
            return f"task {study.task} needs {field}; name the field, or set task: null"
    if study.model.preset not in task.traits.presets:
        return f"model.preset: task {study.task} has {', '.join(task.traits.presets)} (it is {study.model.preset!r})"
    for field in SOME:
        if field not in task.traits.uses and attrgetter(field)(study) != _default(study, field):
            return f"task {study.task} does not use {field}; remove it"
    if study.devices_per_trial > 1 and (problem := _unspread(study, task)):
        return f"devices_per_trial is {study.devices_per_trial}: {problem}"
    if study.pools.model_scores and not isinstance(task, ScoresRows):
        return f"pools.model_scores: task {study.task} scores no single rows; set it to false"
    return task.lacks(study)


def _unspread(study: Study, task: Task) -> str | None:
    """Why one trial cannot have several devices, or None."""
    if not task.traits.spreads:
        return f"task {study.task} trains on one device; set it to 1"
    if packing(study, task):
        return (
            f"a device trains several trials of preset {study.model.preset} at once, which is faster; set it to 1, or "
            "train.micro_batch below train.batch_size"
        )
    if not isinstance(task, Outside) and study.train.batch_size < study.devices_per_trial:
        return f"each device needs a row of a step; raise train.batch_size ({study.train.batch_size}), or lower it"
    return None


def _default(study: Study, field: str) -> Any:
    """What the field is when the study does not say."""
    section, _, name = field.rpartition(".")
    owner = attrgetter(section)(study) if section else study
    return type(owner).model_fields[name].get_default()
