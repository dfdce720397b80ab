"""Every kind of experiment, by name: what the files of this folder define."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from engine.proposals import kinds
from engine.proposals.kinds.contract import Kind
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy
from engine.tasks.contract import Task


def read_kinds() -> dict[str, Kind]:
    """Name → kind, of every module beside this one."""
    modules = (import_module(f"{kinds.__name__}.{m.name}") for m in pkgutil.iter_modules(kinds.__path__))
    return {k.name: k for module in modules for k in vars(module).values() if isinstance(k, Kind)}


KINDS = read_kinds()


def runnable(task: Task) -> frozenset[str]:
    """Kinds of proposals that can run: those of the task, and those that ask nothing of it but to train."""
    return task.traits.runs | {name for name, kind in KINDS.items() if kind.always}


def where(opened: OpenStudy, proposal: Proposal) -> OpenStudy:
    """The study as a proposal's trials see it: in this cycle, in a next one, or on another model or dataset."""
    if proposal.init:
        return opened.following(proposal.init)
    return KINDS[proposal.kind].study(opened, proposal.suggestion.experiment) if proposal.suggestion else opened


def table() -> str:
    """The kinds as a Markdown table."""
    rows = [f"| `{name}` | {kind.takes} | {kind.doc} |" for name, kind in KINDS.items()]
    return "\n".join(["| `kind` | fields | what runs |", "|---|---|---|", *rows])


def brief() -> str:
    """The kinds as a language model is told of them."""
    return "\n".join(f"- {name}: {kind.brief}" for name, kind in KINDS.items())
