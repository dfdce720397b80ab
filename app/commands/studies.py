"""`djsb studies`: the studies of a folder, each with state, answer, budget and best pool. Nothing in them changes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from app.text.printable import one_line, say, say_table
from app.text.studies import WORDS, best_text, time_text, trials_text
from engine.base.amounts import format_seconds, parse_budget
from engine.base.confine import inside
from engine.base.errors import DjsbError, StudyError
from engine.base.paths import DATABASE, STATE_FOLDER, studies_in
from engine.journal import caches, costs, events, proposals, results, trials
from engine.journal.store import Row
from engine.study.lock import engine_pid
from engine.study.neighbours import dataset_of
from engine.study.setting import shown
from engine.study.view import NotStarted, StudyView, view_study

EMPTY: Row = {
    "name": "", "folder": "", "state": "broken", "answer": "", "kind": None, "task": None, "model": None, "data": "",
    "dataset": None, "rows": None, "trials": {}, "best": None, "spent": 0.0, "limit": 0.0, "last": None, "awaiting": 0,
    "problem": None,
}  # fmt: skip
COLUMNS = ("study", "state", "task", "data", "rows", "trials", "budget", "last run", "best pool")


def studies(folder: Path) -> list[Row]:
    """A row a study of the folder, by name. Raises: StudyError where the folder cannot be read."""
    return [full(one) for one in listed(folder)]


def listed(folder: Path) -> list[Path]:
    """The studies of a folder. Raises: StudyError where it cannot be read."""
    try:
        return studies_in(folder.resolve())
    except OSError as error:
        raise StudyError(f"{folder} cannot be read ({error.strerror}); name a folder that holds studies") from error


def light(folder: Path) -> Row:
    """A study's row without what must be computed: no answer, no best pool."""
    return _row(folder, ranked=False)


def full(folder: Path) -> Row:
    """A study's row; one that cannot be read has its reason as `problem`."""
    return _row(folder, ranked=True)


def _row(folder: Path, ranked: bool) -> Row:
    empty = {**EMPTY, "name": folder.name, "folder": str(folder)}
    try:
        if not inside(folder.resolve(), f"{STATE_FOLDER}/{DATABASE}").is_file():
            return empty | _not_started(folder)
        with closing((view := view_study(folder, untouched=True)).store):
            row = empty | _light(view)
            return row | _ranked(view) if ranked else row
    except NotStarted:
        return _unstarted(empty, folder)
    except (DjsbError, OSError, RecursionError, MemoryError) as error:
        return empty | {"problem": one_line(str(error))}


def _unstarted(empty: Row, folder: Path) -> Row:
    try:
        return empty | _not_started(folder)
    except (DjsbError, OSError) as error:
        return empty | {"problem": one_line(str(error))}


def _not_started(folder: Path) -> Row:
    from engine.study.file import read_study

    study = read_study(folder)
    return {**_of_settings(study), "state": "not started", "limit": parse_budget(study.budget)}


def _of_settings(study: Any) -> Row:
    model = study.model.checkpoint or study.model.preset
    return {"name": study.name, "task": study.task, "model": str(model), "data": str(study.dataset.path)}


def _light(view: StudyView) -> Row:
    store = view.store
    counts: dict[str, int] = {}
    for states in trials.counts(store, view.setup).values():
        for state, n in states.items():
            counts[state] = counts.get(state, 0) + n
    waiting = len(proposals.of_setup(store, view.setup, proposals.OPEN))
    return {
        **_of_settings(view.study), "state": _state(view, waiting, counts), "dataset": dataset_of(view),
        "rows": caches.rows_of(store), "trials": counts, "spent": costs.total(store), "limit": view.limit,
        "last": events.last_time(store), "awaiting": waiting,
    }  # fmt: skip


def _state(view: StudyView, waiting: int, counts: dict[str, int]) -> str:
    if engine_pid(view.state):
        return results.ENGINE.get(view.store, view.setup) or "running"
    if waiting:
        return "awaits"
    ended = results.RECIPE.at(view.store, view.setup) and not counts.get("WAITING") and not counts.get("RUNNING")
    return "ended" if ended else "stopped"


def _ranked(view: StudyView) -> Row:
    from engine.evidence.answer import answer
    from engine.evidence.ranking import leaderboard

    told = answer(view)
    best = told.recipe or next((e for e in leaderboard(shown(view)[0]) if e.change is not None), None)
    names = ("pool", "label", "change", "ci_low", "ci_high", "bound", "verdict", "seeds")
    return {
        "answer": told.text, "kind": told.kind,
        "best": best and {name: getattr(best, name) for name in names},
    }  # fmt: skip


def show_studies(found: list[Row]) -> None:
    """As people read it: a table, then what each study answers, or why it cannot be read."""
    say_table([_cells(r) for r in found], COLUMNS, ("data", "rows", "last run", "task"))
    for r in found:
        name = Path(r["folder"]).name
        if r["problem"] or r["answer"]:
            say(f"{name}: {one_line(r['problem'] or r['answer'])}")
        if r["awaiting"]:
            say(f"{name}: {r['awaiting']} proposal(s) await a decision: djsb review --dir {r['folder']}")
    if not found:
        say("no study lies in this folder")


def _cells(r: Row) -> list[str]:
    best = r["best"] or {"label": ""}
    return [
        Path(r["folder"]).name, WORDS[r["state"]], r["task"] or "–", r["data"] or "–",
        "–" if r["rows"] is None else f"{r['rows']:,}", trials_text(r["trials"]),
        f"{format_seconds(r['spent'])} of {format_seconds(r['limit'])}", time_text(r["last"]),
        one_line(f"{best_text(r['best'])}  {best['label']}"),
    ]  # fmt: skip
