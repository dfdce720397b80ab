"""Settings: what of study.yaml all trials of a setup have in common, which of them have results, how they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.base.errors import DjsbError, damaged
from engine.journal import cycles, setups, trials
from engine.settings.study import Study
from engine.study.file import read_study
from engine.study.view import StudyView

SECTIONS = ("dataset", "seed", "task", "model", "lora", "vlm", "video", "distill", "command", "train", "evaluation")
APART = {  # fields that trials need not have in common
    "dataset": {"max_bad", "columns", "scores"},
    "train": {"keep_checkpoints", "micro_batch", "activation_checkpointing"},
    "evaluation": {"metrics", "aggregate", "overlap", "guards"},
}
NAMED = 3  # fields that are named


@dataclass(frozen=True)
class Setting:
    """A setting that trials have finished under. view: the study in its last cycle. at: when it was last worked in."""

    view: StudyView
    at: str
    trials: int


def earlier(view: StudyView) -> list[Setting]:
    """Other settings than this one that have results, the latest first."""
    found: dict[str, Setting] = {}
    for recorded in setups.every(view.store):
        start = cycles.get(view.store, recorded.setup)
        _, complete, _ = trials.progress(view.store, recorded.setup)
        if start.root == view.root or start.root in found or not complete:
            continue
        try:
            study = Study.model_validate_json(recorded.config)
        except ValueError as error:
            raise damaged("the study's configuration", error) from error
        of_setting = StudyView(view.folder, study, view.store)
        of_setting.root = start.root
        found[start.root] = Setting(of_setting.at(recorded.setup, start.init, start.cycle), recorded.at, complete)
    return list(found.values())


def shown(view: StudyView) -> tuple[StudyView, str]:
    """(the study in the setting whose results are shown, what is to be said of that, or nothing).

    An earlier setting's stand, and are marked so, until the setting as it is now has any.
    """
    if any(trials.progress(view.store, c.setup)[1] for c in cycles.chain(view.store, view.setup)):
        return view, _changed_since(view)
    before = next(iter(earlier(view)), None)
    if before is None:
        return view, ""
    changed = differences(before.view.study, view.study)
    return before.view, f"All this is of an earlier setting ({changed}); the setting as it is now has no result yet."


def _changed_since(view: StudyView) -> str:
    """What was changed in study.yaml since the engine last read it, where trials have that in common."""
    try:
        now = read_study(view.folder)
    except DjsbError as error:
        return f"Whether study.yaml is still as it was when this ran cannot be told: {error}."
    if not list(_differences(view.study, now)):
        return ""
    changed = differences(view.study, now)
    return f"study.yaml has changed since ({changed}): all this is of the setting before, until djsb auto runs the new."


def every_difference(old: Study, new: Study) -> list[str]:
    """How one setting differs from another, a line for each field."""
    return list(_differences(old, new))


def differences(old: Study, new: Study) -> str:
    """`train.epochs 1 → 2, …`: how one setting differs from another."""
    found = list(_differences(old, new))
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (", ".join(found[:NAMED]) + more) if found else "other data, model or files"


def _differences(old: Study, new: Study) -> Iterator[str]:
    for name in SECTIONS:
        before, now = getattr(old, name), getattr(new, name)
        if before == now:
            continue
        if not hasattr(before, "model_dump"):
            yield f"{name} {_short(before)} → {_short(now)}"
            continue
        values = before.model_dump(), now.model_dump()
        yield from (
            f"{name}.{key} {_short(values[0][key])} → {_short(values[1][key])}"
            for key in values[0] if key not in APART.get(name, ()) and values[0][key] != values[1][key]
        )  # fmt: skip


def _short(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
