"""A suggestion from a file, from standard input or from an editor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from engine.base.errors import StudyError
from engine.records.experiment import outdated


def read_suggestion(source: Path | None) -> Any:
    """A suggestion as people write it, from a file, standard input, or the person's editor."""
    if source is None and sys.stdin.isatty():
        raise StudyError("give the proposal with --from FILE, or on standard input")
    try:
        text = sys.stdin.read() if source is None or str(source) == "-" else source.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"the proposal is not YAML ({' '.join(str(error).split())[:200]}); mend it there") from None
    for old, new in outdated(content).items():
        print(f"note: `{old}` is called `{new}` now; it was read as that", file=sys.stderr)
    return content
