"""One word has one meaning: a word that was given up does not come back, and a path that is named exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("app", "agent", "engine", "benchmarks", "djsb.py")
PROSE = ("README.md", "CONTRIBUTING.md", "docs", "prompts", "recipes")

ENGINE = ("app", "agent", "engine")


@dataclass(frozen=True)
class Retired:
    """A word that was given up: how to find it (a regular expression), what to say instead, where it may not stand."""

    pattern: str
    instead: str
    tops: tuple[str, ...] = CODE + PROSE


RETIRED = {
    "gerunds": Retired(r"\b(look|showing|reviewing|advising|beyond|recorded|start)\.py\b", "the command's own file"),
    "modules of the flat engine": Retired(
        r"\bengine[/.](drafting|slots|ray_slots|feedback|insight|scaling|prompting|rewritten|rewriting|outcome|cycles"
        r"|bounds|apply|catalogue|dataset|media|scan)\b",
        "the module's room and name, see docs/architecture.md",
    ),
    "flat tasks": Retired(r"\btasks/(clip|clips|feed|training|vqa_files|command_guard)\.py\b", "clip/, shared/, vlm/"),
    "twins": Retired(r"\b(study_pools|proposal_queue|recording_shape|proposal_fields|proposal_form)\b", "the module"),
    "at_work": Retired(r"\bat_work\b", "scheduler"),
    "participles": Retired(r"\b(found|wanted|known|told|asked) = ", "the noun that says the type", ENGINE),
    "Ledger": Retired(r"\b[Ll]edger\b", "Accounts (device time), Spending (tokens)"),
    "PoolRequest": Retired(r"\bPoolRequest\b", "Arm"),
    "digest, the hash": Retired(r"(?<!\.)\bdigest\(|\bids import digest\b", "content_id()", ENGINE),
    "digest, the text": Retired(r"\bdigest_text\b|\bprompt\(\"digest\"", "briefing", CODE),
    "digest in prompts": Retired(r"\bdigest\b", "briefing", ("prompts",)),
    "digest in docs": Retired(r"\bdigest\b", "briefing", ("README.md", "docs")),
    "feedback": Retired(r"(?<![\w.`'\"])feedback\b(?![`'\"])", "model scores"),
    "rewritten": Retired(
        r"(?<![`/])\b[Rr]ewrit(e|es|ing|ten)\b", "mapper, mapped", ("docs/guides", "docs/reference", "README.md")
    ),
    "context": Retired(r"\.context\b|\bcontext: str", "setup", ENGINE),
    "context in docs": Retired(r"\b([Aa]|[Nn]ew|the) context\b", "setup", ("README.md", "docs")),
    "kind scale": Retired(r"kind: scale\b|kind `scale`|`scale` (run|prop)", "kind: transfer", PROSE),
}
# What the code still owes: the set only shrinks, and is empty when the words are renamed.
PENDING = {
    "participles",
}  # fmt: skip


@cache
def texts(tops: tuple[str, ...]) -> dict[str, str]:
    """Path below the repository -> text."""
    files = [f for t in tops for f in ([ROOT / t] if (ROOT / t).is_file() else (ROOT / t).rglob("*"))]
    kinds = {".py", ".md", ".yaml", ".j2", ".tcss"}
    return {str(f.relative_to(ROOT)): f.read_text() for f in files if f.suffix in kinds}


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_does_not_come_back(word: str) -> None:
    retired = RETIRED[word]
    places = [
        f"{path}:{text.count(chr(10), 0, m.start()) + 1}: {m[0]!r}"
        for path, text in texts(retired.tops).items()
        for m in re.finditer(retired.pattern, text)
    ]
    if word in PENDING:
        assert places, f"{word} is gone: take it out of PENDING"
    else:
        assert not places, f"say {retired.instead} in\n" + "\n".join(places[:20])


def test_what_is_pending_is_a_retired_word() -> None:
    assert set(RETIRED) >= PENDING


def test_every_path_that_code_and_docs_name_exists() -> None:
    named = re.compile(
        r"(?<![\w/.])(?:app|agent|engine|docs|tests|benchmarks|recipes|prompts)/[\w/]+\.(?:py|md|yaml)\b"
    )
    missing = {
        f"{path}: {name}"
        for path, text in texts(CODE + PROSE).items()
        for name in named.findall(text)
        if not (ROOT / name).exists() and "NAME" not in name
    }
    assert not missing
