"""One question to a LangChain agent, with limits on calls, invalid replies, time and tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AnyMessage, HumanMessage
from pydantic import BaseModel, ValidationError

from agent.connection import connect, within
from agent.failures import ModelError, told
from agent.spending import Metered, Spending
from agent.tools import Tools, safely
from agent.without_tools import WithoutTools, json_in
from engine.base.problems import explain
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

    def __post_init__(self) -> None:
        self._spending = Spending(self.opened.store.file, self.opened.setup, self.settings)
        self._without = WithoutTools(self.form, self._spending.tell)

    def ask(self, text: str) -> Reply:
        """The model's next valid reply, with keys blacked out.

        Raises: ModelError when the server fails, time or tokens are used up, or too many replies were invalid.
        """
        self.messages.append(HumanMessage(text))
        model = connect(self.settings)
        agent: Any = create_agent(
            model, [safely(tool) for tool in Tools(self.opened).all()], system_prompt=self.system,
            response_format=ToolStrategy(self.form, handle_errors=self._invalid),
            middleware=[
                ModelCallLimitMiddleware(run_limit=LOOKS + self.settings.tries, exit_behavior="error"),
                self._without, Metered(self._spending, self.purpose),
            ],
        )  # fmt: skip
        try:
            return within(self.settings.patience, lambda: self._converse(agent), model.http_client.close, self.stop)  # type: ignore[union-attr]
        except ModelError:
            raise
        except Exception as error:  # the border to LangChain, the client and the server
            raise ModelError(told(error)) from None
        finally:
            model.http_client.close()  # type: ignore[union-attr]

    def _converse(self, agent: Any) -> Reply:
        while True:
            state = agent.invoke({"messages": self.messages})
            self.messages = state["messages"]
            if state.get("structured_response") is not None:
                plain = state["structured_response"].model_dump_json()
            else:
                plain = json_in(self.messages[-1].text)
            try:
                if plain is not None:
                    return self.form.model_validate_json(redact(plain))
                error: Exception = ValueError("it is neither a call of the reply's tool nor its JSON")
            except ValueError as found:
                error = found
            self.messages.append(HumanMessage(self._invalid(error)))

    def _invalid(self, error: Exception) -> str:
        """The message that answers an invalid reply. Raises: ModelError after the last try."""
        self.invalid.append(told(ModelError(_plainly(error))))
        if len(self.invalid) >= self.settings.tries:
            raise ModelError(f"no valid reply in {len(self.invalid)} tries; the last error: {self.invalid[-1]}")
        return f"The reply is not valid: {self.invalid[-1]} Mend it and reply again."


def _plainly(error: BaseException) -> str:
    """What is wrong with a reply, by field where the form says it. LangChain wraps the form's own error."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ValidationError):
            return explain(inner, "the reply", "")
        inner = getattr(inner, "source", None) or inner.__cause__
    return str(error)


def bulleted(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return "\n".join(f"- {line}" for line in lines)
