"""Requests: what a UI asks of a running engine, through the database; it obeys within two seconds and records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.base.amounts import parse_budget
from engine.base.errors import BudgetError
from engine.journal.requests import STATE
from engine.journal.store import Row, now

if TYPE_CHECKING:
    from engine.runner.scheduler import Scheduler


class Inbox:
    """What a scheduler was asked for. Only a commit by another process makes it look."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.store = scheduler, scheduler.opened.store
        self._seen: int | None = None
        self.store.execute(
            "UPDATE requests SET taken = ?, outcome = 'no engine ran' WHERE taken IS NULL", (now(),)
        )  # of a time when nobody could obey
        self._tell("running")

    def read(self) -> None:
        """Obey what is new."""
        row = self.store.one("PRAGMA data_version")
        version = row["data_version"] if row else None
        if version == self._seen:
            return
        self._seen = version
        for request in self.store.query("SELECT * FROM requests WHERE taken IS NULL ORDER BY id"):
            outcome = self._obey(request)
            with self.store.transaction():
                self.store.execute(
                    "UPDATE requests SET taken = ?, outcome = ? WHERE id = ?", (now(), outcome, request["id"])
                )
                what = " ".join(filter(None, (request["kind"], request["argument"])))
                self.store.event("request", f"{what} by {request['who']}: {outcome}")

    def _obey(self, request: Row) -> str:
        s = self.scheduler
        if request["kind"] == "pause":
            s.held = True
            self._tell("paused")
            return "running trials finish, nothing more starts"
        if request["kind"] == "resume":
            s.held = False
            self._tell("running")
            return "goes on"
        if request["kind"] == "stop":
            s.stopping = True
            return "running trials finish, then the engine ends"
        if request["kind"] == "cancel":
            return s.cancel(request["argument"] or "")
        try:
            s.set_limit(parse_budget(request["argument"] or ""))
        except BudgetError as error:
            return str(error)
        return "from now on"

    def _tell(self, state: str) -> None:
        self.store.put_result(self.scheduler.opened.context, STATE, state)
