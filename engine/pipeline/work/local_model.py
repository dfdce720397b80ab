"""A language model on this machine, by transformers."""

from __future__ import annotations

from typing import Any

from engine.pipeline.contract import ComponentError, Context
from engine.pipeline.work.chat import Asked, Messages


def local_params(keys: Asked) -> dict[str, Any]:
    """Parameters of a model here, without the one that would run a checkpoint's code."""
    return {name: value for name, value in keys.model_params.items() if name != "trust_remote_code"}


def opened_model(keys: Asked, context: Context) -> Any:
    """A pipeline of text generation. No code of a checkpoint is run. Raises: ComponentError."""
    from transformers import pipeline  # seconds to import

    folder = context.path(keys.model)
    name = str(folder) if folder.is_dir() else keys.model
    try:
        return pipeline("text-generation", model=name, **local_params(keys))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ComponentError(f"{context.job}: {name} is no model that opens ({reason}); check model") from error


def reply(model: Any, messages: Messages, keys: Asked) -> str:
    """What it says. One without a template of chats gets the texts, a line each."""
    text: Any = messages
    if getattr(model.tokenizer, "chat_template", None) is None:
        text = "\n".join(message["content"] for message in messages)
    return str(model(text, return_full_text=False, **keys.sampling_params)[0]["generated_text"])
