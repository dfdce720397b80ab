"""Keys live in the environment only: what is written or shown passes here first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

SHORTEST = 8  # characters of a key
_NAME = re.compile(
    r"(?:^|_)(?:(?:API|ACCESS|PRIVATE|SECRET)?KEYS?|(?:AUTH|ACCESS|API)?TOKENS?|SECRETS?|(?:[A-Z]+)?PASSWORDS?|PASSWD|PASS|"
    r"PASSPHRASE|PWD|PAT|AUTH|CREDENTIALS?|DSN|COOKIES?|JWT|BEARER|SIGNATURE|SAS|CONNECTION_STRING)(?:_|$)"
)
_FOLDERS = ("PWD", "OLDPWD")  # of the shell, no passwords
# keys of the usual services, wherever they stand: OpenAI, Hugging Face, GitHub, GitLab, Slack, AWS, Google
_KEY = re.compile(
    r"(?<![\w-])(?:sk-[\w-]{20,}|hf_\w{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[a-z]-[\w-]{10,}|"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,})(?![\w-])"
)
_BEGINS = ("sk-", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AKIA", "ASIA", "AIza")
_LOGIN = re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")  # user:password of a URL
_WORD, _PLACE = re.compile(r"[\w-]*$"), re.compile(r"\S*$")


def is_secret(name: str, value: str) -> bool:
    """True for a variable that may hold a key, by its name or by what its value looks like."""
    by_name = name.upper() not in _FOLDERS and _NAME.search(name.upper()) is not None
    return by_name or _KEY.search(value) is not None or _LOGIN.search(value) is not None


def secret_names(environment: Mapping[str, str] | None = None) -> list[str]:
    """Variables, by default of this process, that hold a key long enough to be one; a path to a key is none."""
    return [
        name for name, value in _current(environment).items()
        if len(value) >= SHORTEST and is_secret(name, value)
        and not (value.startswith("/") and os.access(value, os.F_OK))
    ]  # fmt: skip


def secret_values(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is blacked out → the name that takes its place, longest first. The password of a URL counts by itself."""
    return _values(tuple(_current(environment).items()))


def _current(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    """An environment, or that of this process as it is now: a library may have put another object in its place."""
    return os.environ if environment is None else environment


@lru_cache(maxsize=4)
def _values(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    environment = dict(items)
    found: dict[str, str] = {}
    for name in secret_names(environment):
        value = environment[name]
        found[value] = name
        login = _LOGIN.search(value)
        password = login[0].partition(":")[2] if login else ""
        if len(password) >= SHORTEST:
            found[password] = name
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with all keys of the environment replaced by their names, and what looks like a key by [key]."""
    return _by_looks(_by_value(text, environment))


def _by_value(text: str, environment: Mapping[str, str] | None = None) -> str:
    for value, name in secret_values(environment).items():
        text = text.replace(value, f"[{name}]")
    return text


def _by_looks(text: str) -> str:
    return _LOGIN.sub("[login]", _KEY.sub("[key]", text))


def redacted(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of one text with keys blacked out, those too that are spread over several; what may begin one waits."""
    held, keys = "", list(secret_values())
    for piece in pieces:
        held = _by_value(held + piece)
        safe = _safe(held, keys)
        yield _by_looks(held[:safe])
        held = held[safe:]
    yield _by_looks(held)


def _safe(text: str, keys: list[str]) -> int:
    """How much of a text surely belongs to no key that goes on in the next piece."""
    places = [next((at for at in range(len(text)) if any(k.startswith(text[at:]) for k in keys)), len(text))]
    if (
        (word := _WORD.search(text))
        and word[0]
        and any(b.startswith(word[0]) or word[0].startswith(b) for b in _BEGINS)
    ):
        places.append(word.start())
    if (place := _PLACE.search(text)) and re.search(":(?:/|$)", place[0]):  # a URL, or its beginning
        places.append(place.start())
    return min(places)
