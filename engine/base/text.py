"""Text files as they come: UTF-8, with or without the mark at its beginning that some programs write (BOM)."""

from __future__ import annotations

import codecs
from pathlib import Path

from engine.base.errors import DataError

BOM = codecs.BOM_UTF8
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse_wide(head: bytes, name: str) -> None:
    """Raises: DataError where a file that begins so is UTF-16 or UTF-32. name: of the file."""
    if head.startswith((*WIDE, codecs.BOM_UTF32_BE)) or (len(head) > 1 and (head[0] == 0) != (head[1] == 0)):
        raise DataError(f"{name} is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW")


def decode(content: bytes, name: str) -> str:
    """The text of a file, without a BOM. Raises: DataError that names the line of what is no UTF-8."""
    refuse_wide(content[:4], name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}, line {line} is no UTF-8 text ({error.reason}); save the file as UTF-8") from None


def read_text(file: Path) -> str:
    """The text of a file, without a BOM. Raises: DataError."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check the path and its permissions") from error
    return decode(content, str(file))
