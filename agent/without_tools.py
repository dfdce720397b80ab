"""Servers that take no tools are asked without: the answer rests on the briefing, and JSON comes as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import SystemMessage
from openai import APIStatusError
from pydantic import BaseModel

from agent.failures import said
from agent.prompts import prompt
from engine.base.ids import json_text

_FENCED = re.compile(r"(?s)```(?:json)?\s*(\{.*?\})\s*```")


class WithoutTools(AgentMiddleware[Any, Any, Any]):
    """Asks again without tools once a server has refused them. form: what the answer must be, as JSON; None: any text.

    note: called once, with what the server said.
    """

    def __init__(self, form: type[BaseModel] | None, note: Callable[[str], None]) -> None:
        super().__init__()
        self._form, self._note = form, note
        self._refused = False

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call; see the class."""
        if not self._refused:
            try:
                return handler(request)
            except APIStatusError as error:
                if error.status_code in (401, 402, 403, 429) or not re.search(r"(?i)\btools?\b", said(error.body)):
                    raise
                self._refused = True
                self._note(f"the server takes no tools, so the model can look nothing up: {said(error.body)}")
        plainly = prompt("without_tools")
        if self._form is not None:
            plainly = prompt("without_tools_json", schema=json_text(self._form.model_json_schema()))
        system = f"{request.system_message.text if request.system_message else ''}\n\n{plainly}"
        return handler(request.override(tools=[], response_format=None, system_message=SystemMessage(system)))


def json_in(text: str) -> str | None:
    """The JSON object of an answer: in a fence, or from the first brace to the last."""
    if fenced := _FENCED.search(text):
        return fenced[1]
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else None
