"""Servers as they are: what real ones say in place of a regular reply, in both forms."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.agent.server import Drip, Drop, Raw, Reply, Said, chunks, completion

USAGE = {"prompt_tokens": 1000, "completion_tokens": 50}
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>" + b"x" * 3000 + b"</body></html>"
Quirk = Callable[[Reply], Any]  # a regular message → what is said in its place


def regular(message: Reply, usage: Reply | None = USAGE, finish: str | None = None, **more: Any) -> Said:
    """A reply in both forms; more: how it is sent. finish: in place of the regular reason."""
    whole, events = completion(deepcopy(message), usage), list(chunks(deepcopy(message), usage))
    if finish is not None:
        for row in [whole, *events]:
            for choice in row["choices"]:
                choice["finish_reason"] = choice["finish_reason"] and finish
    return Said(whole, events, **more)


def answer(**fields: Any) -> Quirk:
    """A message of these fields in place of the regular one. finish: why it ends."""
    finish = fields.pop("finish", "stop")

    def make(_: Reply) -> Said:
        whole = completion({"role": "assistant", **fields}, USAGE)
        whole["choices"][0]["finish_reason"] = finish
        delta = {"index": 0, "delta": {"role": "assistant", **fields}, "finish_reason": None}
        return Said(whole, [{"choices": [delta]}, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}])

    return make


def changed(change: Callable[[Reply], Any]) -> Quirk:
    """A regular reply; each of its documents is changed in place."""

    def make(message: Reply) -> Said:
        said = regular(message)
        for row in [said.whole, *said.events]:
            change(row)
        return said

    return make


def function(**change: Any) -> Quirk:
    """A regular call of a tool with parts changed: `id`, `index`, or those of its function."""

    def each(row: Reply) -> None:
        for choice in row["choices"]:
            for call in (choice.get("delta") or choice.get("message") or {}).get("tool_calls") or ():
                for name, value in change.items():
                    place = call if name in ("id", "index") else call["function"]
                    place[name] = value(place[name]) if callable(value) else value

    return changed(each)


def usage(**counts: Any) -> Quirk:
    """A regular reply with these counts."""
    return changed(lambda row: row.update(usage=counts) if "usage" in row else None)


def split(message: Reply) -> Said:
    """Calls in pieces of three characters, without an index and an id after the first."""
    said = regular(message)
    (place,) = [n for n, e in enumerate(said.events) if e["choices"] and e["choices"][0]["delta"].get("tool_calls")]
    call = said.events[place]["choices"][0]["delta"]["tool_calls"][0]
    plain = call["function"]["arguments"]
    first = {"id": call["id"], "type": "function", "function": {"name": call["function"]["name"], "arguments": ""}}
    rest = [{"function": {"arguments": plain[at : at + 3]}} for at in range(0, len(plain), 3)]
    pieces = [{"choices": [{"index": 0, "delta": {"tool_calls": [c]}, "finish_reason": None}]} for c in (first, *rest)]
    return Said(said.whole, [*said.events[:place], *pieces, *said.events[place + 1 :]])


def status(code: int, body: Any, **headers: str) -> Quirk:
    """An error of HTTP."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: Raw(raw, code, (("Content-Type", "application/json"), *headers.items()))


def error(text: str) -> Reply:
    """The body of an error."""
    return {"error": {"message": text, "type": "api_error", "code": None}}


def json_in_place_of_a_stream(message: Reply) -> Raw:
    """One document, whatever was asked for."""
    return Raw(json.dumps(completion(message, USAGE)).encode())


def compressed(message: Reply) -> Raw:
    """The same, in gzip."""
    body = gzip.compress(json.dumps(completion(message, USAGE)).encode())
    return Raw(body, 200, (("Content-Type", "application/json"), ("Content-Encoding", "gzip")))


def early(message: Reply) -> Any:
    """A stream that ends in its middle; in the other form, a document that does."""
    said = regular(message)
    return lambda body: Said(None, said.events[:2], done=False) if body.get("stream") else Drop(after=40)


NO_TOOLS = [
    status(400, error("registry.ollama.ai/library/tiny:1b does not support tools")),
    status(400, {"object": "error", "message": '"auto" tool choice requires --enable-auto-tool-choice', "code": 400}),
    status(404, error("No endpoints found that support tool use.")),
    status(500, error("tools param requires --jinja flag")),
]

# what any message may meet, and still be read
WORKS: dict[str, Quirk] = {
    "JSON in place of a stream": json_in_place_of_a_stream,
    "compressed": compressed,
    "comments between events, lines that end in CR LF": lambda m: Said(
        regular(m).whole, [": PROCESSING", *[x for e in regular(m).events for x in (e, ": PROCESSING")]], end="\r\n\r\n"
    ),
    "a first event without choices": lambda m: Said(
        regular(m).whole, [{"choices": [], "prompt_filter_results": []}, *regular(m).events]
    ),
    "a stream without its mark of the end": lambda m: regular(m, done=False),
    "no reason of the end": lambda m: Said(
        {**completion(m, USAGE), "choices": [{"message": m}]}, regular(m).events, done=True
    ),
    "no usage": lambda m: regular(m, None),
    "usage of nulls": usage(prompt_tokens=None, completion_tokens=None, total_tokens=None),
    "usage below zero": usage(prompt_tokens=-1, completion_tokens=-1, total_tokens=-2),
    "usage beyond all bounds": usage(prompt_tokens=10**30, completion_tokens=10**30),
    "usage as text": usage(prompt_tokens="1000", completion_tokens=True),
    "usage in part": usage(prompt_tokens=1000),
    "no names of the document": changed(lambda row: [row.pop(name) for name in ("id", "object", "created", "model")]),
    "a null error": changed(lambda row: row.update(error=None)),
}  # fmt: skip

# what a call of a tool may look like, and still be followed
CALLS: dict[str, Quirk] = {
    "arguments as a dict": function(arguments=json.loads),
    "id null": function(id=None),
    "no index": function(index=None),
    "in pieces": split,
    "ended by stop": lambda m: regular(m, finish="stop"),
    "reasoning beside it": changed(
        lambda row: [c.get("delta", c.get("message")).update(reasoning_content="hm") for c in row["choices"]]
    ),
}

# how an answer may be written, and what of it is shown
TEXTS: dict[str, tuple[Quirk, str]] = {
    "a thought before it": (answer(content="<think>\nsecret\n</think>\n\nIt is 7."), "It is 7."),
    "two thoughts": (answer(content="<think>a</think> <think>b</think>It is 7."), "It is 7."),
    "a list of parts": (
        answer(content=[{"type": "text", "text": "It "}, {"type": "text", "text": "is 7."}]),
        "It is 7.",
    ),
    "a refusal": (answer(content=None, refusal="I cannot say."), "I cannot say."),
    "reasoning beside it": (answer(content="It is 7.", reasoning_content="secret"), "It is 7."),
    "half a character": (answer(content="It is \ud83d7."), "It is ?7."),
}

ODD = ({"choices": [{"message": [1]}]}, [{"choices": [{"delta": [1]}]}])
NAMELESS = {"id": "1", "function": {"arguments": "{}"}}
MANY = [{"id": str(n), "function": {"name": "pool", "arguments": "{}"}} for n in range(40)]
PAGE = (("Content-Type", "text/html"),)

# what ends in one plain line, and what that says
FAILS: dict[str, tuple[Quirk, str]] = {
    "no choices": (changed(lambda row: row.update(choices=[])), "gave no answer"),
    "null choices": (changed(lambda row: row.update(choices=None)), "gave no answer"),
    "an empty message": (answer(content=""), "gave no answer"),
    "only reasoning": (answer(content="", reasoning_content="I think"), "only reasoning"),
    "only reasoning, to the longest": (answer(content=None, reasoning="so", finish="length"), "reasoning as long as"),
    "only a thought": (answer(content="<think>for ever"), "only reasoning"),
    "an answer to the longest": (answer(content="It is", finish="length"), "cut off"),
    "withheld": (answer(content=None, finish="content_filter"), "content_filter"),
    "early end": (early, "cut off|no connection"),
    "an error with 200": (lambda _: Said(error("Provider failed"), [error("Provider failed")]), "Provider failed"),
    "an error in the middle": (
        lambda m: Said(error("Provider failed"), [*regular(m).events[:2], error("Provider failed")]), "Provider failed"
    ),
    "vLLM's error with 200": (
        lambda _: Raw(b'{"object": "error", "message": "too long a prompt", "code": 400}'), "too long a prompt"
    ),
    "HTML with 200": (lambda _: Raw(HTML, 200, PAGE), "no OpenAI protocol .* OPENAI_BASE_URL"),
    "another server's JSON": (lambda _: Raw(b'{"status": "ok"}'), "no OpenAI protocol"),
    "a JSON array": (lambda _: Raw(b"[1, 2]"), "no OpenAI protocol"),
    "JSON lines": (lambda _: Raw(b'{"message": 1}\n{"message": 2}\n'), "no OpenAI protocol"),
    "nothing": (lambda _: Raw(b""), "no OpenAI protocol"),
    "a message that is a list": (lambda _: Said(*ODD), "no OpenAI protocol"),
    "calls in another form": (answer(content=None, tool_calls="all"), "no OpenAI protocol"),
    "a call without a name": (answer(content=None, tool_calls=[NAMELESS]), "without a name"),
    "calls without end": (answer(content=None, tool_calls=MANY), "more than 32 tools"),
    "401": (status(401, error("Incorrect API key")), r"401 \(Unauthorized\).*Incorrect API key; check OPENAI_API_KEY"),
    "402": (status(402, error("Insufficient credits")), "402 .*Insufficient credits; see to the account"),
    "404": (status(404, error("model 'm' not found, try pulling it first")), "404 .*not found.*check agent.model"),
    "429": (status(429, error("slow down")), r"429 \(Too Many Requests\): slow down; ask again later"),
    "429, an hour": (status(429, error("slow down"), **{"Retry-After": "3600"}), "it asks to wait 3600 s"),
    "429, a minute, beyond our patience": (status(429, {}, **{"Retry-After": "60"}), "it asks to wait 60 s"),
    "502 in HTML": (status(502, b"<html><head><title>502 Bad Gateway</title></head></html>"), r"502 \(Bad Gateway\)"),
    "a drip": (lambda _: Drip(0.1, b" "), "in time|no answer within|no usable reply within"),
}  # fmt: skip
