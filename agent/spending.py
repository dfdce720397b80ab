"""Tokens and cost of the language model. Each call is recorded; a call that may pass the cap is not made."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage
from openai import APIConnectionError, APIStatusError, APITimeoutError

from agent.failures import ModelError, Unusable, told
from engine.journal import model_calls
from engine.journal.model_calls import ModelCall
from engine.journal.store import Store
from engine.settings.running import AgentSection

CHARACTERS = 3  # of a token, at least: for servers that count nothing, and to keep the cap before a call


class Spending:
    """The model's account in one study. Every method opens the database anew: LangChain calls from its own threads."""

    def __init__(self, database: Path, setup: str, settings: AgentSection) -> None:
        self.database, self.setup, self.settings = database, setup, settings

    def check(self, characters: int) -> None:
        """Raises: ModelError when a call of that many characters would pass the study's cap."""
        with Store(self.database, readonly=True) as store:
            use = model_calls.total(store)
        ahead = characters // CHARACTERS
        used = use.read + use.written
        if used + ahead > self.settings.tokens:
            raise ModelError(
                f"the study has used {used} of {self.settings.tokens} tokens and this call takes about {ahead}; "
                "raise agent.tokens to go on"
            )
        dollars = (use.cost or 0.0) + (self.cost(ahead, 0) or 0.0)
        if self.settings.max_cost is not None and dollars > self.settings.max_cost:
            raise ModelError(
                f"the study has spent {use.cost or 0:.4f} of {self.settings.max_cost:g} dollars on the model; "
                "raise agent.max_cost to go on"
            )

    def cost(self, read: int, written: int) -> float | None:
        """Dollars, or None where no price is set."""
        price = self.settings.price
        return None if price is None else (read * price[0] + written * price[1]) / 1e6

    def record(self, purpose: str, read: int, written: int, estimated: bool, seconds: float, outcome: str) -> None:
        """Write one call down."""
        cost, model = self.cost(read, written), self.settings.model
        with Store(self.database, readonly=True) as store:
            model_calls.add(store, ModelCall(
                self.setup, purpose, model, read, written, estimated, round(seconds, 3), cost, outcome
            ))  # fmt: skip

    def tell(self, text: str) -> None:
        """Write an event down."""
        with Store(self.database, readonly=True) as store:
            store.event("model", text, level="warning")


class Metered(AgentMiddleware[Any, Any, Any]):
    """Counts every call of an agent's model."""

    def __init__(self, spending: Spending, purpose: str) -> None:
        super().__init__()
        self.spending, self.purpose = spending, purpose

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Check the cap, call, record what it took."""
        asked = sum(len(str(m.content)) + len(str(getattr(m, "tool_calls", ""))) for m in request.messages)
        asked += len(str(request.system_message.content)) if request.system_message else 0
        self.spending.check(asked)
        began = time.monotonic()
        read = written = said = 0
        outcome = "stopped"
        try:
            response = handler(request)
        except Exception as error:
            outcome = told(error)
            if isinstance(error, Unusable):
                read, written = error.read, error.written
            elif isinstance(error, APIStatusError | APIConnectionError) and not isinstance(error, APITimeoutError):
                asked = 0  # the model never had it
            raise
        else:
            outcome = "answered"
            reply = next((m for m in response.result if isinstance(m, AIMessage)), AIMessage(""))
            said = len(str(reply.content)) + len(str(reply.tool_calls))
            if usage := reply.usage_metadata:
                read, written = usage["input_tokens"], usage["output_tokens"]
            return response
        finally:
            self.spending.record(
                self.purpose, read or asked // CHARACTERS, written or said // CHARACTERS, not (read and written),
                time.monotonic() - began, outcome,
            )  # fmt: skip
