"""Puts a benchmark's table into docs/benchmarks.md, between its markers."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

DOC = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def machine() -> str:
    """The machine in one line."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"


def write_section(key: str, title: str, body: str) -> None:
    """Replace (or append) the section of that key."""
    empty = "# Benchmarks\n\nEvery table is written by the command it names.\n"
    text = DOC.read_text(encoding="utf-8") if DOC.exists() else empty
    section = f"<!-- {key} -->\n## {title}\n\n{body}\n\nMachine: {machine()}.\n<!-- /{key} -->"
    pattern = re.compile(rf"<!-- {key} -->.*?<!-- /{key} -->", re.S)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else text.rstrip() + "\n\n" + section + "\n"
    DOC.write_text(text, encoding="utf-8")
