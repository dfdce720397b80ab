"""Plug-ins: what installed packages add to djsb by entry points.

Their metadata tell which there are. Their code is imported when a study or a pipeline names them, and never to list.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from engine.base.errors import DjsbError

TASKS, HOOKS, OPS, PROPOSERS, READERS = (
    f"djsb.{what}" for what in ("tasks", "hooks", "ops", "proposers", "readers")
)  # groups of entry points
WORDS = {TASKS: "task", HOOKS: "component", OPS: "OP", PROPOSERS: "strategy", READERS: "reader"}


class PluginError(DjsbError):
    """A plug-in is not there, or is not what it should be."""


@dataclass(frozen=True)
class Plugin:
    """One plug-in. target: module:name. also: other packages that give the same name, so that none of them counts."""

    group: str
    name: str
    package: str
    version: str
    target: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{WORDS[self.group]} {self.name} of {self.package} {self.version}"

    def problem(self) -> str | None:
        """Why it cannot be loaded, as far as can be said without importing it."""
        if self.also:
            return f"{' and '.join((self.package, *self.also))} both give it; uninstall one of them"
        module, _, attribute = self.target.partition(":")
        if not attribute or not all(part.isidentifier() for part in module.split(".")):
            return f"its entry point is {self.target!r}, not module:name"
        places: Any = None
        parts = module.split(".")
        for i in range(len(parts)):
            name = ".".join(parts[: i + 1])
            spec = PathFinder.find_spec(name, places) if i else _top(name)  # importlib.util would import the parents
            if spec is None:
                return f"there is no module {name}; install {self.package} again"
            places = spec.submodule_search_locations or []
        return None


def _top(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module that was imported without a spec
        return None


def installed() -> tuple[Plugin, ...]:
    """All plug-ins of this Python, by group and name."""
    return _installed(tuple(sys.path))


@lru_cache(maxsize=4)
def _installed(_path: tuple[str, ...]) -> tuple[Plugin, ...]:
    every = entry_points()
    found: list[Plugin] = []
    for group in WORDS:
        of_group = list(every.select(group=group))
        for name in sorted({point.name for point in of_group}):
            first, *others = sorted({_given(point) for point in of_group if point.name == name})
            found.append(Plugin(group, name, *first, tuple(package for package, *_ in others)))
    return tuple(found)


def _given(point: EntryPoint) -> tuple[str, str, str]:
    package = point.dist
    return (package.name, package.version, point.value) if package else ("?", "?", point.value)


def plugin(group: str, name: str) -> Plugin | None:
    """The installed plug-in of that name; its code is not imported."""
    return next((one for one in installed() if (one.group, one.name) == (group, name)), None)


def missing(group: str, name: str, built_in: Collection[str]) -> str:
    """What is said of a name that is neither built in nor installed."""
    return (
        f"there is no {WORDS[group]} {name!r}: {', '.join(built_in)} are built in, and no installed package gives it; "
        "pip install the one that does (djsb plugins lists those that are installed)"
    )


def loaded(one: Plugin, fault: Callable[[Any], str | None]) -> Any:
    """What a plug-in gives. fault: why that is not what its group asks for, or None. Raises: PluginError."""
    if problem := one.problem():
        raise PluginError(f"plug-in {one}: {problem}")
    try:
        given = EntryPoint(one.name, one.target, one.group).load()
    except (Exception, SystemExit) as error:  # a border: a package may raise anything
        raise failed(one, "cannot be imported", error) from error
    if problem := fault(given):
        raise PluginError(f"plug-in {one}: {one.target} {problem} (docs/guides/plugins.md)")
    return given


def failed(one: Plugin, what: str, error: BaseException) -> PluginError:
    """The error for one that a plug-in's code raised."""
    lines = str(error).strip().splitlines() or [""]
    told = f"{type(error).__name__}: {lines[0]}".removesuffix(": ")
    return PluginError(f"plug-in {one} {what} ({told[:300]}); mend or update {one.package}")


def lacks(given: Any, *calls: str) -> str | None:
    """Why an object does not do for a contract of these methods."""
    absent = [name for name in calls if not callable(getattr(given, name, None))]
    return f"has no {', '.join(absent)}" if absent else None
