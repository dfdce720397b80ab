"""Whatever a server says: it is read as a reply in order, or refused in one plain line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.failures import Unusable
from agent.proposer import Proposals
from agent.protocol import streamed, whole
from agent.without_tools import json_in
from tests.conftest import fuzz

TEXT = st.one_of(
    st.text(max_size=12), st.sampled_from(["<think>", "</think>", "<think>a</think>b", "\ud800", "{", "{}", "stop"])
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


def shape(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A dict with some of these fields, or anything else."""
    return st.one_of(st.fixed_dictionaries({}, optional={k: st.one_of(v, ANY) for k, v in fields.items()}), ANY)


FUNCTION = shape(name=st.sampled_from(["Proposals", "pool", ""]), arguments=st.one_of(TEXT, st.dictionaries(TEXT, ANY)))
CALL = shape(id=st.sampled_from(["a", "b", ""]), index=st.integers(0, 2), function=FUNCTION, type=st.just("function"))
PARTS = st.lists(shape(type=st.just("text"), text=TEXT), max_size=2)
MESSAGE = shape(
    role=st.just("assistant"), content=st.one_of(TEXT, PARTS), tool_calls=st.lists(CALL, max_size=3),
    reasoning_content=TEXT, refusal=TEXT,
)  # fmt: skip
CHOICE = shape(index=st.just(0), message=MESSAGE, delta=MESSAGE, finish_reason=st.sampled_from(["stop", "length"]))
USAGE = shape(prompt_tokens=st.integers(-5, 10**30), completion_tokens=st.integers(-5, 10**30))
REPLY = shape(choices=st.lists(CHOICE, max_size=2), usage=USAGE, error=st.none())


def read(way: Callable[[Iterator[bytes]], Iterator[bytes]], pieces: list[bytes]) -> bytes:
    """What the client gets, or nothing where the reply is refused, in one line."""
    try:
        return b"".join(way(iter(pieces)))
    except Unusable as error:
        assert "\n" not in str(error)
        assert min(error.read, error.written) >= 0
        return b""


def in_order(message: Any) -> None:
    """The message is what the protocol has, and a proposer reads it or says why not."""
    assert isinstance(message["content"], str)
    message["content"].encode()
    for call in message.get("tool_calls", ()):
        assert call["id"].encode()
        assert call["function"]["name"].encode()
        call["function"]["arguments"].encode()
    for text in [message["content"], *(c["function"]["arguments"] for c in message.get("tool_calls", ()))]:
        if (found := json_in(text)) is not None:
            with contextlib.suppress(ValueError):
                Proposals.model_validate_json(found)


@fuzz
@given(reply=REPLY)
def test_a_reply_of_any_form(reply: Any) -> None:
    if document := read(whole, [json.dumps(reply).encode()]):
        row = json.loads(document)
        in_order(row["choices"][0]["message"])
        assert min((row["usage"] or {"none": 0}).values()) >= 0


@fuzz
@given(replies=st.lists(REPLY, max_size=4), cut=st.integers(1, 40), done=st.booleans())
def test_a_stream_of_any_form(replies: list[Any], cut: int, done: bool) -> None:
    raw = b"".join(b"data: " + json.dumps(r).encode() + b"\n\n" for r in replies) + b"data: [DONE]\n\n" * done
    out = read(streamed, [raw[at : at + cut] for at in range(0, len(raw), cut)])
    rows = [json.loads(line[6:]) for line in out.split(b"\n\n") if line.startswith(b"data: {")]
    deltas = [choice["delta"] for row in rows for choice in row["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    in_order({"content": "".join(d.get("content", "") for d in deltas), "tool_calls": calls})


@fuzz
@given(raw=st.binary(max_size=200))
def test_bytes_of_any_kind(raw: bytes) -> None:
    read(whole, [raw])
    read(streamed, [raw])


@pytest.mark.parametrize("way", [whole, streamed])
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
@pytest.mark.parametrize("quoted", [True, False], ids=["as text", "as an object"])
def test_arguments_with_a_number_that_is_none_are_no_arguments(
    way: Callable[[Iterator[bytes]], Iterator[bytes]], number: str, quoted: bool
) -> None:
    arguments = f'{{"expected": {number}}}'
    function = f'{{"name": "Proposals", "arguments": {json.dumps(arguments) if quoted else arguments}}}'
    raw = f'{{"choices": [{{"message": {{"tool_calls": [{{"id": "a", "function": {function}}}]}}}}]}}'.encode()
    out = read(way, [raw])
    assert b"no JSON object: " in out
    assert b'\\"expected\\": null' not in out
