"""All components, as the files of `components/` declare them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from engine.pipeline import components
from engine.pipeline.contract import Component
from engine.pipeline.hooks import HOOKS


@cache
def declared() -> dict[tuple[str, str], Component[Any]]:
    """(hook, type) → component, of every module of the folder that has `COMPONENTS`."""
    names = sorted(m.name for m in pkgutil.iter_modules(components.__path__))
    modules = [importlib.import_module(f"{components.__name__}.{name}") for name in names]
    every: Iterable[Component[Any]] = (one for module in modules for one in getattr(module, "COMPONENTS", ()))
    return {(hook, one.name): one for one in every for hook in sorted(one.hooks)}


def component_in(module: str, hook: str, kind: str) -> Component[Any] | None:
    """A component of one module of the folder: a job's process imports no other."""
    if not module.startswith(f"{components.__name__}."):
        return None
    every: Iterable[Component[Any]] = importlib.import_module(module).COMPONENTS
    return next((one for one in every if one.name == kind and hook in one.hooks), None)


def types_of(hook: str) -> list[str]:
    """The types that a hook knows, sorted."""
    return sorted(name for other, name in declared() if other == hook)


def component_of(hook: str, kind: str | None) -> Component[Any] | None:
    """The component of a hook, by its type where the hook has several; None where there is no such."""
    if not HOOKS[hook].typed:
        return next((one for (other, _), one in declared().items() if other == hook), None)
    return declared().get((hook, kind or ""))
