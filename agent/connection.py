"""The connection to a server that speaks the OpenAI protocol: bounded in time and size, and quiet about the key."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agent.failures import KEY, SERVER, ModelError
from engine.settings.running import AgentSection

if TYPE_CHECKING:
    import httpx2  # what the openai client is built on
    from langchain_openai import ChatOpenAI

MAX_REPLY = 4_000  # tokens that a reply is asked to have at most
RETRIES = 2  # of a request that failed by time-out, 408, 409, 429 or 5xx, with growing pauses
Result = TypeVar("Result")


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
    for name in ("httpx2", "openai"):  # their lines of every request tell the whole address
        logging.getLogger(name).setLevel(logging.ERROR)
    from langchain_openai import ChatOpenAI
    from openai import DefaultHttpxClient
    from pydantic import SecretStr

    from agent.protocol import put_in_order

    end = time.monotonic() + settings.patience

    def read(response: httpx2.Response) -> None:
        _wait_no_longer(response, end)
        put_in_order(response, settings.timeout)

    return ChatOpenAI(
        model=settings.model or "", api_key=SecretStr(os.environ.get(KEY) or "none"),
        base_url=os.environ.get(SERVER) or None, timeout=settings.timeout, max_retries=RETRIES,
        max_completion_tokens=MAX_REPLY, use_responses_api=False, stream_usage=True,
        http_client=DefaultHttpxClient(timeout=settings.timeout, event_hooks={"response": [read]}),
    )  # fmt: skip


def _wait_no_longer(response: httpx2.Response, end: float) -> None:
    """A server that asks to wait beyond our patience is not asked again."""
    wait = response.headers.get("retry-after", "")
    if wait.isdigit() and time.monotonic() + int(wait) > end:
        response.headers["x-should-retry"] = "false"


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
