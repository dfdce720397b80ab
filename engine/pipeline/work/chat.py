"""Rows put to a language model: messages built of a row, asked, and the reply written into the row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import requests
from pydantic import Field

from engine.base.durable import replaced
from engine.base.secrets import redact
from engine.data.dataset import json_line
from engine.pipeline.contract import ComponentError, Context, Draft, Group, Paths
from engine.pools.files import Pool, folder_for, open_pools

KEYS = ("OPENAI_API_KEY", "DASHSCOPE_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_URL", "DASHSCOPE_BASE_URL")
SERVER = "https://api.openai.com/v1"
ENDPOINT, RESPONSE = "/chat/completions", "choices.0.message.content"
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}  # answers after which it is worth to ask again
BLOCK = 256  # rows that are asked about together
Messages = list[dict[str, str]]
Ask = Callable[[Messages], str]


class FuncKeys(Group):
    """func_kwargs: fields of a row that messages are built of."""

    system_key: str = "system"
    query_key: str = "query"
    response_key: str = "response"


class Asked(Group):
    """Keys of whatever puts rows to a language model."""

    model: str = Field(min_length=1)
    model_params: dict[str, Any] = Field(default_factory=dict)
    sampling_params: dict[str, Any] = Field(default_factory=dict)
    build_messages_func: Literal["build_messages", "build_messages_for_math_qa"] = "build_messages"
    parse_output_func: Literal["parse_output"] = "parse_output"
    func_kwargs: FuncKeys = FuncKeys()
    infer_res_key: str = "response"


class Chat(Asked):
    """Keys of an inference."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str


def messages_of(row: Mapping[str, Any], keys: Asked, where: str) -> Messages:
    """What is asked about a row. Raises: ComponentError where a field is missing."""
    names = keys.func_kwargs

    def field(name: str) -> str:
        if row.get(name) is None:
            has = ", ".join(map(str, row))
            raise ComponentError(f"{where} has no {name}; set func_kwargs to fields of the rows, which have {has}")
        return str(row[name])

    text = field(names.query_key)
    if keys.build_messages_func == "build_messages_for_math_qa":
        text = f"Question: {text}\nAnswer: {field(names.response_key)}"
    system = row.get(names.system_key)
    return [*([{"role": "system", "content": str(system)}] if system else []), {"role": "user", "content": text}]


def infer(keys: Chat, context: Context, ask: Ask, parallel: int) -> list[str]:
    """Write each data set with the model's replies: `NAME_inference.jsonl`. Raises: ComponentError, PoolError."""
    pools = open_pools([context.path(name) for name in keys.dataset_path], apart=True)
    folder = folder_for(context.path(keys.export_path))
    made = []
    with ThreadPoolExecutor(parallel) as threads:
        for number, pool in enumerate(pools, 1):
            target = folder / f"{pool.stem}_inference.jsonl"
            _infer_pool(pool, target, keys, lambda questions: list(threads.map(ask, questions)))
            context.say(f"{number} of {len(pools)}: {len(pool)} rows answered, {target.name}")
            made.append(str(target))
    return made


def _infer_pool(pool: Pool, target: Path, keys: Chat, ask: Callable[[Sequence[Messages]], list[str]]) -> None:
    with replaced(target) as part, part.open("wb") as file:
        for start in range(0, len(pool), BLOCK):
            rows = pool.read(start, min(start + BLOCK, len(pool)))
            questions = [messages_of(row, keys, f"{pool.path}, row {n}") for n, row in enumerate(rows, start)]
            for row, said in zip(rows, ask(questions), strict=True):
                file.write((json_line({**row, keys.infer_res_key: said}) + "\n").encode())


class ApiKeys(Asked):
    """What type `api` takes. api_endpoint: path at the server, or an address. parallel: questions at once."""

    api_endpoint: str | None = None
    response_path: str | None = None
    max_retry_num: int = Field(5, ge=0)
    parallel: int = Field(8, ge=1, le=256)


def server_of(keys: ApiKeys, job: str) -> Server:
    """The server that they name."""
    return Server(
        keys.model, keys.api_endpoint, keys.response_path, keys.model_params, keys.sampling_params,
        keys.max_retry_num, job,
    )  # fmt: skip


def keys_in_file(draft: Draft) -> Iterable[tuple[str, str]]:
    """Keys that stand in a configuration."""
    for name in ("api_key", "key", "token"):
        if draft.get(f"extra_configs.model_params.{name}"):
            yield f"extra_configs.model_params.{name}", "is a key in a file; remove it, and set OPENAI_API_KEY"


class Server:
    """A server that speaks as OpenAI's does. Its key comes from the environment only."""

    def __init__(self, model: str, endpoint: str | None, response: str | None, params: Mapping[str, Any],
                 sampling: Mapping[str, Any], retries: int, job: str) -> None:  # fmt: skip
        base = params.get("base_url") or next((os.environ[n] for n in KEYS[2:] if os.environ.get(n)), None) or SERVER
        end = endpoint or ENDPOINT
        self.url = end if "://" in end else f"{str(base).rstrip('/')}/{end.lstrip('/')}"
        self.way = (response or RESPONSE).split(".")
        self.body = {"model": model, **sampling}
        self.retries, self.job = retries, job
        self.seconds = float(params.get("timeout", 120))
        key = next((os.environ[name] for name in KEYS[:2] if os.environ.get(name)), "none")
        self.headers = {"Authorization": f"Bearer {key}"}

    def ask(self, messages: Messages) -> str:
        """The reply. Raises: ComponentError once all tries have failed, or where another try would not help."""
        for left in range(self.retries, -1, -1):
            said, again = self._once(messages)
            if again is None:
                return said
            if not left or not again:
                tries = f" after {self.retries - left + 1} tries" if again else ""
                raise ComponentError(f"{self.job}: {redact(self.url)} gave no reply{tries}: {redact(said)[:300]}")
            time.sleep(min(30.0, 0.5 * 2 ** (self.retries - left)))
        raise AssertionError("the loop ends by a reply or an error")

    def _once(self, messages: Messages) -> tuple[str, bool | None]:
        """(the reply, None), or (why there is none, whether it is worth to ask again)."""
        body = {**self.body, "messages": messages}
        try:
            answer = requests.post(self.url, json=body, headers=self.headers, timeout=self.seconds)
        except requests.RequestException as error:
            return f"{type(error).__name__}: {error}", True
        if answer.status_code != 200:
            hint = "; set OPENAI_API_KEY in the environment" if answer.status_code in (401, 403) else ""
            said = f"status {answer.status_code} {' '.join(answer.text.split())}"
            return said[:250] + hint, answer.status_code in PASSING
        try:
            found: Any = answer.json()
            for part in self.way:
                found = found[int(part)] if isinstance(found, list) else found[part]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return f"its answer has nothing at {'.'.join(self.way)} ({type(error).__name__}: {error})", False
        return str(found or ""), None
