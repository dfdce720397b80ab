"""One question to a LangChain agent, with limits on calls, invalid replies, time and tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AnyMessage, HumanMessage
from pydantic import BaseModel

from agent.connection import ModelError, connect, told, within
from agent.spending import Metered, Spending
from agent.tools import Tools, safely
from engine.base.secrets import redact
from engine.settings.running import AgentSection
from engine.study.opened import OpenStudy

LOOKS = 8  # calls that may go to tools, beyond one for each try
Reply = TypeVar("Reply", bound=BaseModel)


@dataclass
class Question(Generic[Reply]):
    """A conversation that ends in replies of one type.

    tries: invalid replies that are put up with, in the whole conversation. invalid: what was wrong with each.
    """

    opened: OpenStudy
    settings: AgentSection
    purpose: str
    system: str
    form: type[Reply]
    stop: Callable[[], bool] = lambda: False
    messages: list[AnyMessage] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)

    def ask(self, text: str) -> Reply:
        """The model's next valid reply, with keys blacked out.

        Raises: ModelError when the server fails, time or tokens are used up, or too many replies were invalid.
        """
        self.messages.append(HumanMessage(text))
        model = connect(self.settings)
        spending = Spending(self.opened.store.file, self.opened.setup, self.settings)
        agent: Any = create_agent(
            model, [safely(tool) for tool in Tools(self.opened).all()], system_prompt=self.system,
            response_format=ToolStrategy(self.form, handle_errors=self._invalid),
            middleware=[
                ModelCallLimitMiddleware(run_limit=LOOKS + self.settings.tries, exit_behavior="error"),
                Metered(spending, self.purpose),
            ],
        )  # fmt: skip
        try:
            return within(self.settings.patience, lambda: self._converse(agent), model.http_client.close, self.stop)  # type: ignore[union-attr]
        except ModelError:
            raise
        except Exception as error:  # the border to LangChain, the client and the server
            raise ModelError(f"the language model failed: {told(error)}") from None
        finally:
            model.http_client.close()  # type: ignore[union-attr]

    def _converse(self, agent: Any) -> Reply:
        while True:
            state = agent.invoke({"messages": self.messages})
            self.messages = state["messages"]
            if state.get("structured_response") is not None:
                plain = state["structured_response"].model_dump_json()
                return self.form.model_validate_json(redact(plain))
            problem = self._invalid(ValueError("the reply was plain text, not a call of the reply's tool"))
            self.messages.append(HumanMessage(problem))

    def _invalid(self, error: Exception) -> str:
        """The message that answers an invalid reply. Raises: ModelError after the last try."""
        self.invalid.append(told(error))
        if len(self.invalid) >= self.settings.tries:
            raise ModelError(f"no valid reply in {len(self.invalid)} tries; the last error: {self.invalid[-1]}")
        return f"The reply is not valid: {self.invalid[-1]} Mend it and reply again."


def bulleted(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return "\n".join(f"- {line}" for line in lines)
