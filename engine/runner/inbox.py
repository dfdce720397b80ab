"""Requests of a UI to the running engine: read here, obeyed by the scheduler within two seconds."""

from __future__ import annotations

from collections.abc import Iterator

from engine.journal import requests
from engine.journal.requests import Request
from engine.journal.store import Store


class Inbox:
    """What the engine was asked for. Only a commit by another process makes it look into the database."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._seen: int | None = None
        requests.close_unread(store)

    def read(self) -> Iterator[Request]:
        """New requests, oldest first."""
        version = self.store.version()
        if version != self._seen:
            self._seen = version
            yield from requests.open_requests(self.store)

    def answer(self, request: Request, outcome: str) -> None:
        """Record what came of a request."""
        with self.store.transaction():
            requests.answer(self.store, request, outcome)
            what = " ".join(filter(None, (request.kind, request.argument)))
            self.store.event("request", f"{what} by {request.who}: {outcome}")
