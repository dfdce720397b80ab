"""What a server says, made into the OpenAI protocol: put in order where that is safe, else refused in one plain line.

Servers differ in what they leave out, call null or send in another form. The client and LangChain see one form only.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2  # what the openai client is built on

from agent.failures import SERVER, Unusable, said, server
from engine.base.ids import json_text

MAX_BYTES = 2_000_000  # of one reply
MAX_CALLS = 32  # of tools, in one reply
MAX_TOKENS = 10**9  # that a server may count for one reply; what is beyond is no count
OPEN, CLOSE = "<think>", "</think>"
AGAIN = "ask again, or choose another agent.model"
Row = dict[str, Any]


def put_in_order(response: httpx2.Response, seconds: float) -> None:
    """Hook of the HTTP client: a reply is read as below, ends once it is too long, and takes at most `seconds`."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    inner = _Bounded(response.stream, time.monotonic() + seconds)
    response.stream = inner
    if not response.is_success:
        return
    streams = bool(json.loads(response.request.content or b"{}").get("stream"))
    # a response of its own undoes the compression
    pieces = httpx2.Response(response.status_code, headers=response.headers, stream=inner).iter_bytes()
    response.stream = _Written(streamed(pieces) if streams else whole(pieces), inner)
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)
    response.headers["content-type"] = "text/event-stream" if streams else "application/json"


def whole(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A reply that is one JSON document."""
    reply = _document(b"".join(pieces))
    choice = {"index": 0, "message": reply.message(), "finish_reason": reply.finish or "stop"}
    yield json_text({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": reply.usage()}).encode()


def streamed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A reply in pieces, or one JSON document in place of them. Calls of tools come whole, at the end."""
    start = b""
    while not start.strip() and (piece := next(pieces, None)) is not None:
        start = start.lstrip() + piece
    if start.lstrip().startswith(b"{"):
        reply = _document(start + b"".join(pieces))
        yield _chunk({"role": "assistant", "content": reply.text})
    else:
        reply = Reply()
        for text in _texts(reply, start, pieces):
            yield _chunk({"role": "assistant", "content": text})
    message = reply.message()
    calls = [{"index": n, **call} for n, call in enumerate(message.get("tool_calls", ()))]
    yield _chunk({"role": "assistant", **({"tool_calls": calls} if calls else {})}, reply.finish or "stop")
    if usage := reply.usage():
        yield _event({**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


class _Thoughts:
    """Takes <think> blocks off the beginning of a text that comes in pieces. within: one is open."""

    def __init__(self) -> None:
        self.within, self._after, self._any, self._held = False, False, False, ""

    def feed(self, piece: str) -> str:
        """The part of the text so far that is an answer and was not given yet."""
        if self._after:
            return piece
        self._held += piece
        while True:
            if self.within and CLOSE not in self._held:
                self._held = self._held[-len(CLOSE) :]
                return ""
            if self.within:
                self.within, self._held = False, self._held.partition(CLOSE)[2]
            start = self._held.lstrip()
            if not start.startswith(OPEN):
                break
            self.within, self._any, self._held = True, True, start[len(OPEN) :]
        if OPEN.startswith(start):
            return ""
        self._after = True
        return self.end()

    def end(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return "" if self.within else held.lstrip() if self._any else held


@dataclass
class Reply:
    """What a model has said. thought: there was reasoning. finish: why it ended, by the server."""

    text: str = ""
    thought: bool = False
    finish: str | None = None
    read: int = 0
    written: int = 0
    _calls: list[Row] = field(default_factory=list)
    _thoughts: _Thoughts = field(default_factory=_Thoughts)

    def take(self, row: Any) -> str:
        """Note one message of the server, whole or a part; the text that it adds. Raises: Unusable."""
        if not isinstance(row, dict):
            raise self._unusable(_foreign("JSON of another form came"))
        if (error := row.get("error")) or row.get("object") == "error":
            raise self._unusable(f"the server reports an error: {said(error or row)}")
        if isinstance(usage := row.get("usage"), dict):
            self.read = _count(usage.get("prompt_tokens")) or self.read
            self.written = _count(usage.get("completion_tokens")) or self.written
        choices = row.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        if isinstance(finish := choice.get("finish_reason"), str):
            self.finish = finish
        message = choice.get("delta") or choice.get("message") or {}
        if not isinstance(message, dict):
            raise self._unusable(_foreign("a message of another form came"))
        self.thought |= any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
        self._take_calls(message.get("tool_calls"))
        return self._add(self._thoughts.feed(_text(message.get("content") or message.get("refusal"))))

    def rest(self) -> str:
        """The text that was held back, at the end of a reply."""
        self.thought |= self._thoughts.within
        return self._add(self._thoughts.end())

    def message(self) -> Row:
        """The whole of it. Raises: Unusable when there is no answer, or a part of one only."""
        if self.finish == "length":
            raise self._unusable(self._too_long())
        calls = [self._call(call) for call in self._calls]
        if not self.text.strip() and not calls:
            odd = self.finish not in (None, "stop", "tool_calls")
            why = "only reasoning" if self.thought else f"it ended by {said(self.finish)}" if odd else "an empty reply"
            raise self._unusable(f"the model gave no answer ({why}); {AGAIN}")
        return {"role": "assistant", "content": self.text, **({"tool_calls": calls} if calls else {})}

    def usage(self) -> Row | None:
        """What the server counts, or None where it does not. A count of 0 stands for one that is not known."""
        if not (self.read or self.written):
            return None
        return {
            "prompt_tokens": self.read, "completion_tokens": self.written, "total_tokens": self.read + self.written
        }  # fmt: skip

    def cut_off(self) -> Unusable:
        """The error of a reply that stops in its middle."""
        return self._unusable("the answer is cut off: the server ended it early; ask again")

    def _add(self, text: str) -> str:
        self.text += text
        return text

    def _too_long(self) -> str:
        if self.text.strip() or self._calls:
            return "the answer is cut off: it is as long as one reply may be; ask for less"
        return "the model gave no answer (reasoning as long as one reply may be); choose another agent.model"

    def _unusable(self, why: str) -> Unusable:
        return Unusable(why, self.read, self.written)

    def _take_calls(self, rows: Any) -> None:
        if rows is not None and not isinstance(rows, list):
            raise self._unusable(_foreign("a call of a tool in another form came"))
        for row in rows or ():
            function = row.get("function") if isinstance(row, dict) else None
            if not isinstance(function, dict):
                raise self._unusable(_foreign("a call of a tool in another form came"))
            call = self._place(row, function)
            if isinstance(name := function.get("name"), str):
                call["name"] = call["name"] or _text(name)
            arguments = function.get("arguments")
            if not isinstance(arguments, str):  # a NaN in it is refused with the whole
                arguments = json.dumps(arguments, allow_nan=True) if arguments else ""
            call["arguments"] += arguments
        if len(self._calls) > MAX_CALLS:
            raise self._unusable(f"the model calls more than {MAX_CALLS} tools at once; ask again")

    def _place(self, row: Row, function: Row) -> Row:
        """The call that a part belongs to: by index and id as far as the server gives them, else the last one."""
        id, index = row.get("id") or None, row.get("index")
        if index is not None:
            same = [c for c in self._calls if c["index"] == index and id in (None, c["id"])]
        elif id is not None:
            same = [c for c in self._calls if c["id"] == id]
        else:
            same = [] if function.get("name") else self._calls
        if not same:
            same = [{"id": id, "index": index, "name": "", "arguments": ""}]
            self._calls += same
        return same[-1]

    def _call(self, call: Row) -> Row:
        """A call with a name, an id and arguments that are a JSON object, or text that cannot be taken for one."""
        if not call["name"]:
            raise self._unusable(f"the model calls a tool without a name; {AGAIN}")
        id = _text(call["id"]) if isinstance(call["id"], str) else f"call_{uuid.uuid4().hex[:12]}"
        function = {"name": call["name"], "arguments": _arguments(call["arguments"])}
        return {"id": id, "type": "function", "function": function}


_HEAD: Row = {"id": "reply", "created": 0, "model": "model"}


def _event(row: Row) -> bytes:
    return b"data: " + json_text(row).encode() + b"\n\n"


def _chunk(delta: Row, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]})


def _document(raw: bytes) -> Reply:
    """A reply that comes in one piece. Templates that begin a thought by themselves leave only its end in the text."""
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        raise Unusable(_foreign("no JSON came")) from None
    reply = Reply()
    reply.take(row)
    reply.rest()
    if "choices" not in row:
        raise Unusable(_foreign("JSON of another form came"))
    thought, ended, answer = reply.text.partition(CLOSE)
    if ended and OPEN not in thought:
        reply.text, reply.thought = answer.lstrip(), True
    return reply


def _texts(reply: Reply, start: bytes, pieces: Iterator[bytes]) -> Iterator[str]:
    """The texts of a stream of events; the rest of what they say is noted in the reply."""
    data = None
    for data in _events(start, pieces):
        if data.startswith("[DONE]"):
            break
        try:
            row = json.loads(data)
        except (ValueError, RecursionError):
            raise Unusable(_foreign("a stream of what is no JSON came"), reply.read, reply.written) from None
        if text := reply.take(row):
            yield text
    else:
        if data is None:
            raise Unusable(_foreign("neither JSON nor a stream of it came"))
        if reply.finish is None and (reply.text or reply.thought):
            raise reply.cut_off()
    if text := reply.rest():
        yield text


def _events(start: bytes, pieces: Iterator[bytes]) -> Iterator[str]:
    """The data of server-sent events; comments and other fields are left aside."""
    rest, data = start, list[str]()
    for piece in itertools.chain(pieces, [b"\n\n"]):  # the last event may lack its end
        *lines, rest = (rest + piece).split(b"\n")
        for line in map(bytes.strip, lines):
            if line.startswith(b"data:"):
                data.append(line[5:].decode("utf-8", "replace").strip())
            elif not line and data:
                yield "\n".join(data)
                data = []


def _text(content: Any) -> str:
    """A message's text, which may be a list of parts. What no file or terminal can hold is replaced."""
    if isinstance(content, list):
        content = "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""


def _arguments(text: str) -> str:
    """Arguments as a JSON object; what is none becomes a text that no lenient reader takes for one.

    A number that is not finite makes them none: null in its place would be another wish than the model's.
    """
    try:
        value = json.loads(text) if text.strip() else {}
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode()
    except (ValueError, RecursionError):
        pass  # said below
    return f"no JSON object: {_text(text)[:200]}"


def _count(value: Any) -> int:
    """A number of tokens; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_TOKENS else 0


def _foreign(what: str) -> str:
    return f"no OpenAI protocol at {server()} ({what}); check {SERVER}"


class _Written(httpx2.SyncByteStream):
    """What stands in for a reply. inner: the reply itself, to be closed."""

    def __init__(self, pieces: Iterator[bytes], inner: httpx2.SyncByteStream) -> None:
        self._pieces, self._inner = pieces, inner

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._inner.close()


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, deadline: float) -> None:
        self.inner, self.deadline = inner, deadline

    def __iter__(self) -> Iterator[bytes]:
        had = 0
        for chunk in self.inner:
            had += len(chunk)
            if had > MAX_BYTES:
                raise Unusable(f"the reply is longer than {MAX_BYTES} bytes; check {SERVER} and agent.model")
            if time.monotonic() > self.deadline:
                raise httpx2.ReadTimeout("the reply takes too long")
            yield chunk

    def close(self) -> None:
        self.inner.close()
