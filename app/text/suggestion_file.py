"""A suggestion from a file, from standard input or from an editor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from engine.base.errors import StudyError
from engine.base.yaml_text import parse_yaml, read_utf8
from engine.records.experiment import outdated


def read_suggestion(source: Path | None) -> Any:
    """A suggestion as people write it, from a file, standard input, or the person's editor."""
    if source is None and sys.stdin.isatty():
        raise StudyError("give the proposal with --from FILE, or on standard input")
    try:
        text = sys.stdin.read() if source is None or str(source) == "-" else read_utf8(source)
    except UnicodeDecodeError:
        raise StudyError("the proposal is not UTF-8; save it as UTF-8") from None
    content = parse_yaml(text, "the proposal")
    listed = content if isinstance(content, list) else [content]
    for old, new in {old: new for one in listed for old, new in outdated(one).items()}.items():
        print(f"note: `{old}` is called `{new}` now; it was read as that", file=sys.stderr)
    return content
