"""Keys live in the environment only: what is written or shown passes here first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$")


def secret_names(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables of the environment that hold a key: by their names, and long enough to be one."""
    return [n for n, value in environment.items() if _SECRET.search(n.upper()) and len(value) >= 8]


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with the values of all keys in the environment replaced by their names."""
    for name in sorted(secret_names(environment), key=lambda n: -len(environment[n])):
        text = text.replace(environment[name], f"[{name}]")
    return text


def redacted(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of one text with keys blacked out, those too that are spread over several; what may begin one waits."""
    held, keys = "", [os.environ[name] for name in secret_names()]
    for piece in pieces:
        held = redact(held + piece)
        safe = next((at for at in range(len(held)) if any(k.startswith(held[at:]) for k in keys)), len(held))
        yield held[:safe]
        held = held[safe:]
    yield held


def without_secrets() -> dict[str, str]:
    """The environment without keys: neither workers nor the UI's reader need any."""
    names = secret_names()
    return {k: v for k, v in os.environ.items() if k not in names}
