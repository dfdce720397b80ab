"""Tokens and cost of the language model. Each call is recorded; a call that may pass the cap is not made."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage

from agent.connection import ModelError, told
from engine.journal.store import Row, Store, now
from engine.settings.running import AgentSection

CHARACTERS = 3  # of a token, at least: for servers that count nothing, and to keep the cap before a call


class Ledger:
    """The model's account in one study. Every method opens the database anew: LangChain calls from its own threads."""

    def __init__(self, database: Path, context: str, settings: AgentSection) -> None:
        self.database, self.context, self.settings = database, context, settings

    def spent(self) -> Row:
        """Calls, tokens read and written, and dollars so far (None where no price is set)."""
        with Store(self.database, readonly=True) as store:
            row = store.one(
                "SELECT count(*) AS calls, coalesce(sum(read), 0) AS read, coalesce(sum(written), 0) AS written, "
                "sum(cost) AS cost FROM model_calls"
            )
        assert row is not None
        return row

    def check(self, characters: int) -> None:
        """Raises: ModelError when a call of that many characters would pass the study's cap."""
        had, ahead = self.spent(), characters // CHARACTERS
        used = had["read"] + had["written"]
        if used + ahead > self.settings.tokens:
            raise ModelError(
                f"the study has used {used} of {self.settings.tokens} tokens and this call takes about {ahead}; "
                "raise agent.tokens to go on"
            )
        dollars = (had["cost"] or 0.0) + (self.cost(ahead, 0) or 0.0)
        if self.settings.max_cost is not None and dollars > self.settings.max_cost:
            raise ModelError(
                f"the study has spent {had['cost'] or 0:.4f} of {self.settings.max_cost:g} dollars on the model; "
                "raise agent.max_cost to go on"
            )

    def cost(self, read: int, written: int) -> float | None:
        """Dollars, or None where no price is set."""
        price = self.settings.price
        return None if price is None else (read * price[0] + written * price[1]) / 1e6

    def record(self, purpose: str, read: int, written: int, estimated: bool, seconds: float, outcome: str) -> None:
        """Write one call down."""
        with Store(self.database, readonly=True) as store:
            store.put(
                "model_calls",
                {"context": self.context, "purpose": purpose, "model": self.settings.model, "read": read,
                 "written": written, "estimated": estimated, "seconds": round(seconds, 3),
                 "cost": self.cost(read, written), "outcome": outcome, "at": now()},
            )  # fmt: skip


class Metered(AgentMiddleware[Any, Any, Any]):
    """Counts every call of an agent's model."""

    def __init__(self, ledger: Ledger, purpose: str) -> None:
        super().__init__()
        self.ledger, self.purpose = ledger, purpose

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Check the cap, call, record what it took."""
        asked = sum(len(str(m.content)) + len(str(getattr(m, "tool_calls", ""))) for m in request.messages)
        asked += len(str(request.system_message.content)) if request.system_message else 0
        self.ledger.check(asked)
        began = time.monotonic()
        try:
            response = handler(request)
        except Exception as error:
            self.ledger.record(self.purpose, 0, 0, True, time.monotonic() - began, told(error))
            raise
        reply = next((m for m in response.result if isinstance(m, AIMessage)), None)
        usage = reply.usage_metadata if reply is not None else None
        answered = len(str(reply.content)) + len(str(reply.tool_calls)) if reply is not None else 0
        counts = [usage["input_tokens"], usage["output_tokens"]] if usage else [0, 0]
        # a server that reports less than its own text can hold is not believed
        read, written = max(counts[0], 0), max(counts[1], 0)
        estimated = not (read and written)
        self.ledger.record(
            self.purpose, read or asked // CHARACTERS, written or answered // CHARACTERS, estimated,
            time.monotonic() - began, "answered",
        )  # fmt: skip
        return response
