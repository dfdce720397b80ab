"""Which plug-ins a study uses, with their versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.base import plugins
from engine.base.paths import resolve
from engine.data.catalogue import get_op
from engine.data.ops.table import OPS
from engine.data.readers.plugged import reader_plugin, version_of
from engine.settings.search import STRATEGIES
from engine.study.opened import OpenStudy
from engine.tasks.registry import task_names


@dataclass(frozen=True)
class Used:
    """A plug-in of a study. version: of its package. counts: of what it does, part of the ids of results, or None."""

    what: str
    name: str
    package: str
    version: str
    counts: int | None


def plugins_of(opened: OpenStudy) -> list[Used]:
    """All of them. Raises: PluginError for one that cannot be imported."""
    return [
        Used(plugins.WORDS[one.group], one.name, one.package, one.version, counts) for one, counts in _named(opened)
    ]


def _named(opened: OpenStudy) -> Iterator[tuple[plugins.Plugin, int | None]]:
    study = opened.study
    if study.task and study.task not in task_names() and (one := plugins.plugin(plugins.TASKS, study.task)):
        yield one, opened.task.traits.version
    strategy = study.search.strategy
    if strategy not in STRATEGIES and (one := plugins.plugin(plugins.PROPOSERS, strategy)):
        yield one, None  # who asks for a trial does not change it
    for name in study.ops:
        if name not in OPS and (one := plugins.plugin(plugins.OPS, name)):
            yield one, get_op(name).version
    dataset = study.dataset
    paths = [dataset.path, *(s.path for s in dataset.sources.values()), *(s.path for s in dataset.scores)]
    paths += [study.evaluation.path or ""]
    readers = [reader_plugin(resolve(opened.folder, path)) for path in paths if path]
    for reader in dict.fromkeys(one for one in readers if one):
        yield reader, version_of(reader)
