"""Lines from another program: bounded in length, and read as JSON objects that a database can store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LONGEST = 2**20  # bytes of a line; a longer one is not held
DIGITS = 18  # of whole numbers that surely fit into 64 bits; longer ones are read as floats


class Lines:
    """Splits what arrives into lines. A line over LONGEST comes out as None, once it has ended."""

    def __init__(self) -> None:
        self._open = bytearray()
        self._long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that end in `data`; what follows the last of them is held, up to LONGEST."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            yield self.rest()
        self._hold(rest)

    def _hold(self, part: bytes) -> None:
        self._long = self._long or len(self._open) + len(part) > LONGEST
        if self._long:
            self._open.clear()
        else:
            self._open += part

    def rest(self) -> bytes | None:
        """The line that has not ended, which it gives away; empty where there is none."""
        line = None if self._long else bytes(self._open)
        self._open.clear()
        self._long = False
        return line


def read_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or None.

    Half characters (lone surrogates) become question marks; whole numbers beyond 64 bits become floats, at last
    infinite ones.
    """
    try:
        value = json.loads(line.decode("utf-8-sig", "replace"), parse_int=_whole)
        if b"\\u" in line:  # only an escape can be half a character
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def storable(text: str) -> str:
    """The text with question marks for half characters, which no file or database takes."""
    return text.encode("utf-8", "replace").decode()


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= DIGITS else float(digits)
