"""The section of the study file for scores that a language model gives."""

from __future__ import annotations

from pydantic import Field

from engine.settings.section import Section


class ScoresSection(Section):
    """A language model that scores rows (the llm_* OPs); nothing is asked unless model and tokens are set."""

    model: str | None = Field(None, description="name of the chat model; null: none is asked")
    server: str | None = Field(
        None, description="address of a server that speaks the OpenAI protocol; null: OPENAI_BASE_URL, or OpenAI's own"
    )
    key: str = Field("OPENAI_API_KEY", description="variable of the environment that holds the server's key")
    tokens: int = Field(0, ge=0, description="tokens, read and written, that the scores may take in all; 0: none")
    parallel: int = Field(4, ge=1, le=64, description="rows that are asked about at once")
    timeout: float = Field(60.0, gt=0, description="seconds that one request may take")
    temperature: float | None = Field(0.0, ge=0, description="of the replies; null: the server's own")
    longest: int = Field(600, ge=1, description="tokens that a reply may have")
