"""What goes wrong with a language model, each in one plain line without keys."""

from __future__ import annotations

import os
import re
from http.client import responses
from typing import TYPE_CHECKING, Any

from engine.base.errors import DjsbError
from engine.base.secrets import redact

if TYPE_CHECKING:
    from openai import APIStatusError

KEY, SERVER = "OPENAI_API_KEY", "OPENAI_BASE_URL"
LONGEST = 160  # characters of what a server says
_REMEDY = {
    400: "check agent.model, and whether the server speaks all of the OpenAI protocol",
    401: f"check {KEY}", 402: "see to the account at the server", 403: f"check {KEY} and what it may use",
    404: f"check agent.model and {SERVER}", 429: "ask again later",
}  # fmt: skip


class ModelError(DjsbError):
    """The language model did not answer, or its answer cannot be used."""


class Unusable(ModelError):
    """A reply that holds no whole answer. read, written: tokens that the server counts for it; 0: it does not say."""

    def __init__(self, why: str, read: int = 0, written: int = 0) -> None:
        super().__init__(why)
        self.read, self.written = read, written


def server() -> str:
    """The server's address as it may be shown: without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", os.environ.get(SERVER) or "https://api.openai.com/v1")


def told(error: BaseException) -> str:
    """An error of the model's side in one short line without keys."""
    text = str(error) if isinstance(error, DjsbError) else _of_the_client(error)
    return redact(" ".join(text.split()))[:400]


def said(error: Any) -> str:
    """What a server says of an error, in whatever form, as one short line."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("error") or error.get("detail") or error
    if isinstance(error, dict) and error.get("message"):
        error = error["message"]
    plain = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", str(error))
    return " ".join(plain.split())[:LONGEST]


def _of_the_client(error: BaseException) -> str:
    import openai  # takes a second; only errors of its own and of LangChain come here

    if isinstance(error, openai.APITimeoutError):
        return f"no whole reply from {server()} in time; try again, or raise agent.timeout"
    if isinstance(error, openai.APIStatusError):
        return _of_a_status(error)
    cause = error.__cause__ or error
    if isinstance(error, openai.APIConnectionError):
        return f"no connection to {server()} ({cause}); check {SERVER} and whether the server runs"
    if type(error).__name__ == "ModelCallLimitExceededError":
        return "the model went on calling tools without an answer, up to the limit of calls for one question"
    return f"{type(error).__name__}: {error}"


def _of_a_status(error: APIStatusError) -> str:
    code = error.status_code
    phrase = responses.get(code, "?")
    wait = error.response.headers.get("retry-after", "")[:40]
    parts = [said(error.body or ""), f"it asks to wait {wait} s" if wait.isdigit() else "", _remedy(code)]
    return f"{server()} answers {code} ({phrase}): " + "; ".join(p for p in parts if p)


def _remedy(code: int) -> str:
    return _REMEDY.get(code, "ask again later" if code >= 500 else _REMEDY[400])
