"""A component run by itself, as a job would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.pipeline.contract import Context, Done
from engine.pipeline.registry import component_of


def run_component(
    root: Path, hook: str, extra: Mapping[str, Any] | None = None, dj: Mapping[str, Any] | None = None, **context: Any
) -> Done:
    """What it gives. context: fields of Context."""
    component = component_of(hook, (extra or {}).get("type"))
    assert component is not None, (hook, extra)
    settings = component.settings.model_validate({"extra_configs": extra or {}, "dj_configs": dj or {}})
    (root / "scratch").mkdir(exist_ok=True)
    done = component.run(settings, Context(root, root, "p.job", root / "scratch", **context))
    assert len(done.outputs) == len(component.gives)
    return done
