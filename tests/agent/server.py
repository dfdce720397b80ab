"""A server on loopback that speaks the OpenAI protocol: chat completions with tools, structured output and streaming.

It says what a script tells it to; every request that it got is kept.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any]
# the request's body → what to do: a dict of `message` parts, or one of the special actions below
Script = Callable[[Reply], Any]


@dataclass(frozen=True)
class Raw:
    """Exactly these bytes with a status, whatever they are."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Drop:
    """Close the connection after so many bytes of a reply; wait: seconds before."""

    after: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class Drip:
    """Endless bytes, one every so many seconds."""

    every: float
    text: bytes = b" "


@dataclass(frozen=True)
class Said:
    """A reply in both forms: one document, and the events of a stream, each a row or a line as it is sent."""

    whole: Any
    events: Sequence[Any]
    done: bool = True
    end: str = "\n\n"


def text(content: str) -> Reply:
    """A plain answer."""
    return {"role": "assistant", "content": content}


def call(name: str, arguments: Any, id_: str = "call_1") -> Reply:
    """A tool call. arguments: a value, or the text as it is sent."""
    plain = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function = {"name": name, "arguments": plain}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": id_, "type": "function", "function": function}],
    }


@dataclass
class Server:
    """A running server. script: what to say to each request; the last entry is said for ever."""

    script: list[Any]
    url: str = ""
    requests: list[Reply] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    usage: Reply | None = field(default_factory=lambda: {"prompt_tokens": 1000, "completion_tokens": 50})

    def next(self, body: Reply, headers: dict[str, str]) -> Any:
        """What to say now."""
        place = min(len(self.requests), len(self.script) - 1)
        self.requests.append(body)
        self.headers.append(headers)
        said = self.script[place]
        return said(body) if callable(said) else said


def completion(message: Reply, usage: Reply | None) -> Reply:
    """The message as one document."""
    found = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted",
        "choices": [{"index": 0, "message": message, "logprobs": None,
                     "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}],
    }  # fmt: skip
    total = sum(usage.values()) if usage else 0
    return {**found, "usage": {**usage, "total_tokens": total}} if usage else found


def chunks(message: Reply, usage: Reply | None) -> Iterator[Reply]:
    """The message as a stream of deltas."""

    def chunk(delta: Reply, finish: str | None = None) -> Reply:
        return {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }  # fmt: skip

    yield chunk({"role": "assistant", "content": ""})
    content = message.get("content") or ""
    for start in range(0, len(content), 7):
        yield chunk({"content": content[start : start + 7]})
    for i, tool in enumerate(message.get("tool_calls") or ()):
        yield chunk({"tool_calls": [{"index": i, **tool}]})
    yield chunk({}, "tool_calls" if message.get("tool_calls") else "stop")
    if usage:
        yield {**chunk({}), "choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        """Answer by the script."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = self.server.state.next(body, dict(self.headers))
        try:
            if isinstance(said, Raw):
                self._send(said.body, said.status, said.headers)
            elif isinstance(said, Drop):
                time.sleep(said.wait)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"{" * said.after)
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
            elif isinstance(said, Drip):
                self._drip(said)
            elif body.get("stream"):
                usage = self.server.state.usage
                self._stream(said if isinstance(said, Said) else Said(None, list(chunks(said, usage))))
            else:
                found = said.whole if isinstance(said, Said) else completion(said, self.server.state.usage)
                self._send(json.dumps(found).encode())
        except OSError:
            self.close_connection = True

    def _send(self, body: bytes, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        for name, value in headers or (("Content-Type", "application/json"),):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, said: Said) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in [*said.events, *(["data: [DONE]"] if said.done else [])]:
            line = event if isinstance(event, str) else f"data: {json.dumps(event)}"
            self.wfile.write((line + said.end).encode())
            self.wfile.flush()
        self.close_connection = True

    def _drip(self, said: Drip) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(said.text)
            self.wfile.flush()
            time.sleep(said.every)


@contextmanager
def serving(*script: Any) -> Iterator[Server]:
    """A server on a free port of 127.0.0.1 while the block runs."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    state = Server(list(script), f"http://127.0.0.1:{http.server_address[1]}/v1")
    http.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
