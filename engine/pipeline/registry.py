"""All components, as the files of `components/` declare them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from engine.base import plugins
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
    """A component of one module of the folder, or of a plug-in: a job's process imports no other."""
    if not module.startswith(f"{components.__name__}."):
        return plugged(hook, kind)
    every: Iterable[Component[Any]] = importlib.import_module(module).COMPONENTS
    return next((one for one in every if one.name == kind and hook in one.hooks), None)


def plugged(hook: str, kind: str) -> Component[Any] | None:
    """The component of a plug-in; None where none of the name is installed, or it is for other hooks.

    Raises: PluginError.
    """
    given = plugins.plugin(plugins.HOOKS, kind)
    if given is None:
        return None
    component: Component[Any] = plugins.loaded(given, lambda found: fault(kind, found))
    return component if hook in component.hooks else None


def fault(kind: str, given: Any) -> str | None:
    """Why what a plug-in gives is no component, or None."""
    if not isinstance(given, Component):
        return "is no Component; give an object, not its class"
    if given.name != kind:
        return f"is called {given.name}, and its entry point {kind}"
    odd = sorted(set(given.hooks) - {hook.name for hook in HOOKS.values() if hook.typed})
    return f"is for {', '.join(odd) or 'no hook'}, which takes no types" if odd or not given.hooks else None


def plugin_of(component: Component[Any]) -> plugins.Plugin | None:
    """The plug-in that a component is; None for djsb's own."""
    own = type(component).__module__.startswith(f"{components.__name__}.")
    return None if own else plugins.plugin(plugins.HOOKS, component.name)


def types_of(hook: str) -> list[str]:
    """The types that a hook knows, sorted."""
    return sorted(name for other, name in declared() if other == hook)


def component_of(hook: str, kind: str | None) -> Component[Any] | None:
    """The component of a hook, by its type where the hook has several; None where there is no such."""
    if not HOOKS[hook].typed:
        return next((one for (other, _), one in declared().items() if other == hook), None)
    return declared().get((hook, kind or "")) or plugged(hook, kind or "")
