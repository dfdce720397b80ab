"""All kinds of experiment, as the files of this folder declare them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from engine.base.ids import json_text
from engine.proposals import kinds
from engine.proposals.kinds.contract import Kind, Refused
from engine.records.experiment import Experiment, Suggestion, kind_name
from engine.records.proposal import Proposal, stored_proposal
from engine.tasks.contract import Task


def declared() -> dict[str, Kind[Any]]:
    """Name → kind, of every module of the folder that has `KINDS`, in the order of their places."""
    names = [m.name for m in pkgutil.iter_modules(kinds.__path__) if m.name not in ("contract", "registry")]
    modules = [importlib.import_module(f"{kinds.__name__}.{name}") for name in names]
    every: list[Kind[Any]] = [kind for module in modules for kind in getattr(module, "KINDS", ())]
    return {kind_name(kind.schema): kind for kind in sorted(every, key=lambda k: k.schema.place)}


KINDS = declared()


def kind_of(experiment: Experiment) -> Kind[Any]:
    """The kind of an experiment. Raises: Refused."""
    if experiment.kind not in KINDS:
        raise Refused(f"kind {experiment.kind} cannot be run")
    return KINDS[experiment.kind]


def runnable(task: Task) -> list[str]:
    """Names of the kinds that a task can run, sorted."""
    return sorted(name for name, kind in KINDS.items() if kind.fits(task))


def read_suggestion(content: Any) -> Suggestion:
    """A suggestion as plain values. Raises: ValidationError; TypeError, ValueError for what is no JSON."""
    return Suggestion.model_validate_json(json_text(content))


def read_proposal(content: Mapping[str, Any]) -> Proposal:
    """The proposal in a stored content, of any kind that there is. Raises: ValidationError."""
    return stored_proposal(content)


def briefs() -> str:
    """What a language model is told of each kind, a line each."""
    return "\n".join(f"- {name}: {kind.brief}" for name, kind in KINDS.items())
