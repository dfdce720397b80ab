"""`djsb log`: the recorded events."""

from __future__ import annotations

from pathlib import Path

from app.text.printable import say
from engine.base.errors import StudyError
from engine.base.ids import some
from engine.base.paths import DATABASE, STATE_FOLDER, STUDY_FILE
from engine.journal import events, jobs
from engine.journal.store import Row, Store
from engine.study.view import store_to_read, view_study


def log(folder: Path, last: int, job: str | None = None) -> list[Row]:
    """The last events and decisions, oldest first. job: the log of this job of a pipeline instead."""
    with _store(folder) as store:
        if job is not None:
            return _lines(store, job, last)
        newest_first = events.last(store, last)
    return [some(e, "at", "level", "kind", "subject", "text") for e in reversed(newest_first)]


def _store(folder: Path) -> Store:
    """The database of a study, or of a folder that holds pipelines only."""
    state = folder / STATE_FOLDER
    alone = (state / DATABASE).exists() and not (folder / STUDY_FILE).exists()
    return store_to_read(state) if alone else view_study(folder).store


def _lines(store: Store, job: str, last: int) -> list[Row]:
    rows = [row for run in jobs.runs(store) for row in jobs.jobs_of(store, run.run)]
    results = [row.result for row in rows if row.key == job and row.result]
    if not results:
        names = ", ".join(dict.fromkeys(row.key for row in rows)) or "none"
        raise StudyError(f"no job {job} has run here; there are {names}")
    found = jobs.lines(store, results[-1], last)
    return [{"at": line.at, "level": "info", "kind": "job", "subject": job, "text": line.text} for line in found]


def show_log(found: list[Row]) -> None:
    """As people read it."""
    for r in found:
        say(f"{r['at']}  {r['level']:7}  {r['kind']:10}  {r['subject'] or '':16}  {r['text']}")
