"""The connection to a server that speaks the OpenAI protocol: bounded in time and size, and quiet about the key."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2  # what the openai client is built on

from engine.base.errors import DjsbError
from engine.base.secrets import redact
from engine.settings.running import AgentSection

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

KEY, SERVER = "OPENAI_API_KEY", "OPENAI_BASE_URL"
MAX_REPLY = 4_000  # tokens that a reply is asked to have at most
RETRIES = 2  # of a request that failed by time-out, 408, 409, 429 or 5xx, with growing pauses
Result = TypeVar("Result")


class ModelError(DjsbError):
    """The language model did not answer, or its answer cannot be used."""


def missing(settings: AgentSection) -> str | None:
    """Why no model can be asked, with the remedy, or None."""
    if settings.model is None:
        return "no language model is named; set agent.model in study.yaml"
    if not (os.environ.get(KEY) or os.environ.get(SERVER)):
        return f"no language model can be reached: set {KEY}, or {SERVER} for a server of your own"
    absent = [p for p in ("langchain", "langchain_openai", "openai") if importlib.util.find_spec(p) is None]
    if absent:
        return f"the language model needs {', '.join(absent)}: pip install 'djsb[agent]'"
    return None


def connect(settings: AgentSection) -> ChatOpenAI:
    """A chat model by the environment's key and server. Raises: ModelError when there is none."""
    if problem := missing(settings):
        raise ModelError(problem)
    # a user's tracing settings for other programs must not send a study to a tracing service
    os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
    from langchain_openai import ChatOpenAI
    from openai import DefaultHttpxClient
    from pydantic import SecretStr

    return ChatOpenAI(
        model=settings.model or "", api_key=SecretStr(os.environ.get(KEY) or "none"),
        base_url=os.environ.get(SERVER) or None, timeout=settings.timeout, max_retries=RETRIES,
        max_completion_tokens=MAX_REPLY, use_responses_api=False, stream_usage=True,
        http_client=DefaultHttpxClient(
            timeout=settings.timeout, event_hooks={"response": [lambda r: bound(r, settings.timeout)]}
        ),
    )  # fmt: skip


def within(seconds: float, work: Callable[[], Result], close: Callable[[], None], stop: Callable[[], bool]) -> Result:
    """The result of `work`, run in a thread with a time limit, so that signals interrupt it.

    close: ends the connection when time is up or `stop` says so; the thread is left to end by itself.
    Raises: ModelError when time is up; whatever `work` raises.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, work()))
        except BaseException as error:  # raised again in the waiting thread
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True, name="djsb-model")
    end = time.monotonic() + seconds
    thread.start()
    while thread.is_alive() and time.monotonic() < end and not stop():
        thread.join(0.1)
    if not outcome:
        close()
        raise ModelError("stopped" if stop() else f"no usable reply within {seconds:g} s")
    good, value = outcome[0]
    if good:
        return value  # type: ignore[no-any-return]
    raise value


def told(error: BaseException) -> str:
    """An error of the model's side in one short line without keys."""
    name, text = type(error).__name__, " ".join(str(error).split())
    short = text if isinstance(error, DjsbError) else f"{name}: {text}" if text else name
    return redact(short)[:300]


MAX_BYTES = 2_000_000  # of one reply


def bound(response: httpx2.Response, seconds: float) -> None:
    """Let reading a reply end with an error once it is too long or takes longer than `seconds`."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, time.monotonic() + seconds)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, deadline: float) -> None:
        self.inner, self.deadline = inner, deadline

    def __iter__(self) -> Iterator[bytes]:
        had = 0
        for chunk in self.inner:
            had += len(chunk)
            if had > MAX_BYTES:
                raise httpx2.RemoteProtocolError(f"the reply is longer than {MAX_BYTES} bytes")
            if time.monotonic() > self.deadline:
                raise httpx2.ReadTimeout("the reply takes too long")
            yield chunk

    def close(self) -> None:
        self.inner.close()
