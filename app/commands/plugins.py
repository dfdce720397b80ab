"""`djsb plugins`: what installed packages add. Only what is named is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from app.text.printable import say, say_table
from engine.base.errors import DjsbError
from engine.base.plugins import HOOKS, OPS, PROPOSERS, READERS, TASKS, Plugin, PluginError, installed, loaded

Row = dict[str, Any]


def list_plugins(names: Sequence[str] = ()) -> list[Row]:
    """All plug-ins that are installed, or those of these names, which are imported and compared with the contract.

    Raises: PluginError for a name that none has.
    """
    every = installed()
    if absent := [name for name in names if name not in {one.name for one in every}]:
        raise PluginError(f"no installed package gives a plug-in {absent[0]!r}; djsb plugins lists what is there")
    chosen = [one for one in every if not names or one.name in names]
    return [
        {"name": one.name, "group": one.group, "package": one.package, "version": one.version,
         "problem": _problem(one, load=bool(names))}
        for one in chosen
    ]  # fmt: skip


def _problem(one: Plugin, load: bool) -> str | None:
    if one.name in _built_in(one.group):
        return "refused: djsb or Data-Juicer has its own of that name"
    if problem := one.problem():
        return f"broken: {problem}"
    if load:
        try:
            loaded(one, _contract(one))
        except DjsbError as error:
            return f"broken: {error}"
    return None


@cache
def _built_in(group: str) -> frozenset[str]:
    """The names that djsb and Data-Juicer use themselves."""
    if group == TASKS:
        from engine.tasks.registry import task_names

        return frozenset(task_names())
    if group == HOOKS:
        from engine.pipeline.registry import declared

        return frozenset(kind for _, kind in declared())
    if group == PROPOSERS:
        from engine.settings.search import STRATEGIES

        return frozenset(STRATEGIES)
    if group == READERS:
        from engine.data.readers.formats import FORMATS, PACKED
        from engine.data.readers.tar_members import PACKED as TARS

        return frozenset(end[1:] for end in (*FORMATS, *PACKED, *TARS))
    from engine.data.ops.table import OPS

    spec = importlib.util.find_spec("data_juicer")
    folder = Path(str(spec and spec.origin)).parent / "ops"
    return frozenset([*OPS, *(file.stem for file in folder.glob("*/*.py"))])


def _contract(one: Plugin) -> Callable[[Any], str | None]:
    """What its group asks for."""
    if one.group == TASKS:
        from engine.tasks.registry import fault

        return fault
    if one.group == HOOKS:
        from engine.pipeline import registry

        return lambda given: registry.fault(one.name, given)
    if one.group == PROPOSERS:
        from engine.search import strategies

        return strategies.fault
    if one.group == READERS:
        from engine.data.readers import plugged

        return plugged.fault
    assert one.group == OPS
    from engine.data import catalogue

    return lambda given: catalogue.op_fault(one.name, given)


def show_plugins(found: Sequence[Row]) -> None:
    """A plug-in a line."""
    if not found:
        say("no plug-ins are installed; docs/guides/plugins.md says how to write one")
        return
    rows = [[r["name"], r["group"], r["package"], r["version"], r["problem"] or "ready"] for r in found]
    say_table(rows, ["name", "group", "package", "version", ""])
