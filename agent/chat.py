"""A conversation about a study: streamed answers that cite ids; "try X" becomes a proposal, never an action."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware, hook_config
from langchain_core.messages import AIMessageChunk, AnyMessage, HumanMessage

from agent.briefing import write_briefing
from agent.connection import connect
from agent.failures import ModelError, told
from agent.prompts import prompt
from agent.spending import Metered, Spending
from agent.tools import Tools, safely
from agent.without_tools import WithoutTools
from engine.base.secrets import redact, redacted
from engine.journal import pools, proposals, trials
from engine.journal.store import Store
from engine.proposals.suggest import suggest
from engine.records.experiment import Suggestion
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy

KEPT = 20  # messages of the conversation that the model is reminded of
CALLS = 12  # of the model, for one question
_CITED = re.compile(r"\b(?:[0-9a-f]{12}|[0-9a-f]{16}|paper:[0-9a-f]{6})\b")


@dataclass
class Chat:
    """One conversation. limit: device-seconds of the study's budget. queued: proposals it has made, by id."""

    opened: OpenStudy
    limit: float
    stop: Callable[[], bool] = lambda: False
    messages: list[AnyMessage] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)

    def suggest(self, suggestion: Suggestion) -> str:
        """Put an experiment to the gate and, if it passes, into the queue, where it waits for the person's decision."""
        with Store(self.opened.store.file, readonly=True) as store:
            mine = _with_store(self.opened, store)
            clean = Suggestion.model_validate_json(redact(suggestion.model_dump_json()))
            key, status, reason = suggest(mine, clean, "model", Accounts(mine, self.limit))
        if status == "queued":
            self.queued.append(key)
        return f"proposal {key} is {status}: {reason}"

    def ask(self, question: str) -> Iterator[str]:
        """The answer, piece by piece.

        Raises: ModelError when the server fails, or time or tokens are used up; what was said before stays said.
        """
        settings = self.opened.study.agent
        model = connect(settings)
        spending = Spending(self.opened.store.file, self.opened.setup, settings)
        agent: Any = create_agent(
            model, [safely(tool) for tool in [*Tools(self.opened).all(), self.suggest]],
            system_prompt=prompt("chat", briefing=write_briefing(self.opened, self.limit)),
            middleware=[
                _Mending(), ModelCallLimitMiddleware(run_limit=CALLS, exit_behavior="error"),
                WithoutTools(None, spending.tell), Metered(spending, "chat"),
            ],
        )  # fmt: skip
        question = redact(question)
        messages = [*self.messages[-KEPT:], HumanMessage(question)]
        said: list[str] = []
        try:
            for piece in redacted(self._stream(agent, messages, settings.patience)):
                said.append(piece)
                yield piece
        finally:
            model.http_client.close()  # type: ignore[union-attr]
            self.messages += [HumanMessage(question), AIMessageChunk(content="".join(said))]

    def _stream(self, agent: Any, messages: list[AnyMessage], seconds: float) -> Iterator[str]:
        """The answer in pieces. A thread reads the model, so that the time limit and `stop` work."""
        pieces: queue.Queue[str | BaseException | None] = queue.Queue()

        def read() -> None:
            try:
                for chunk, _ in agent.stream({"messages": messages}, stream_mode="messages"):
                    if isinstance(chunk, AIMessageChunk) and chunk.text:
                        pieces.put(str(chunk.text))
                pieces.put(None)
            except BaseException as error:  # raised again in the waiting thread
                pieces.put(error)

        threading.Thread(target=read, daemon=True, name="djsb-chat").start()
        end = time.monotonic() + seconds
        while True:
            try:
                piece = pieces.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() > end or self.stop():
                    raise ModelError("stopped" if self.stop() else f"no answer within {seconds:g} s") from None
                continue
            if piece is None:
                return
            if isinstance(piece, ModelError):
                raise piece
            if isinstance(piece, BaseException):
                raise ModelError(told(piece)) from None
            yield piece


class _Mending(AgentMiddleware[Any, Any, Any]):
    """A call with arguments that are no JSON is not the end: the model is told so, by LangChain, and asked again.

    It stands before what limits the calls, which counts first then.
    """

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Go back to the model where no call can be followed."""
        last = state["messages"][-1]
        return {"jump_to": "model"} if last.invalid_tool_calls and not last.tool_calls else None


def citations(opened: OpenStudy, answer: str) -> dict[str, Any]:
    """Ids that an answer names: `known` ones with what they are, and `unknown` ones, which the study does not have."""
    from agent.literature import all_papers

    papers = {p["id"]: p["title"] for p in all_papers()}
    known: dict[str, str] = {}
    unknown = []
    for id in dict.fromkeys(_CITED.findall(answer)):
        name = papers.get(id) or _name(opened.store, id)
        if name is None:
            unknown.append(id)
        else:
            known[id] = name
    return {"known": known, "unknown": unknown}


def _name(store: Store, id: str) -> str | None:
    """What an id stands for: a pool's label, `trial`, or a proposal's kind."""
    if pool := pools.get(store, id):
        return pool.label
    if trials.get(store, id):
        return "trial"
    proposal = proposals.get(store, id)
    return proposal.kind if proposal else None


def _with_store(opened: OpenStudy, store: Store) -> OpenStudy:
    """The study with its data as already computed, on a connection of the calling thread's own."""
    from dataclasses import replace

    copy = replace(opened, store=store)
    for name in ("data", "scan", "op_plan", "statistic_columns", "probe", "cuts", "setup", "metrics"):
        copy.__dict__[name] = getattr(opened, name)
    return copy
