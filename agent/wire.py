"""Replies of a server, bounded in size and time: a time-out alone begins anew with every byte that drips in."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2  # what the openai client is built on

MAX_BYTES = 2_000_000  # of one reply


def bound(response: httpx2.Response, seconds: float) -> None:
    """Let reading a reply end with an error once it is too long or takes longer than `seconds`."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, time.monotonic() + seconds)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, deadline: float) -> None:
        self.inner, self.deadline = inner, deadline

    def __iter__(self) -> Iterator[bytes]:
        had = 0
        for chunk in self.inner:
            had += len(chunk)
            if had > MAX_BYTES:
                raise httpx2.RemoteProtocolError(f"the reply is longer than {MAX_BYTES} bytes")
            if time.monotonic() > self.deadline:
                raise httpx2.ReadTimeout("the reply takes too long")
            yield chunk

    def close(self) -> None:
        self.inner.close()
