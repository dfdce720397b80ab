"""Works on data-model co-development: titles and taxonomy tags, method cards, with full-text search.

`papers.jsonl` is the paper list of "The Synergy between Data and Multi-Modal Large Language Models: A Survey from
Co-Development Perspective". `methods.jsonl` has cards of works of that list and of later ones: what the method does,
needs, reports, and which kind of proposal it becomes. Needs no study, no key and no language model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from engine.journal.schema import sqlite_utils

HERE = Path(__file__).resolve().parent
BECOMES = ("bucket", "dedup", "mapper", "mixture", "repetition", "score column", "transfer")
SEARCHED = ("short", "title", "tags", "becomes", "method", "needs")


def all_papers() -> list[dict[str, Any]]:
    """Every work: id, title, tags. With a card: short, method, needs, becomes, how, and arxiv and figures if any.

    becomes: of `BECOMES`. how: what to write in a study or a proposal. figures: as its authors report them, or none.
    """
    works = {w["id"]: w for w in _read("papers.jsonl")}
    for card in _read("methods.jsonl"):
        works[card["id"]] = works.get(card["id"], {}) | card
    return list(works.values())


def _read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def search(query: str = "", tag: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Works with any word of the query in name, title, tags or card, best first; all of a tag for an empty query.

    tag: a part of a tag's path, or of what a card becomes, in any case (`Mixture`, `data4model/scaling`, `mapper`).
    """
    works = [w for w in all_papers() if tag is None or any(tag.lower() in t.lower() for t in _labels(w))]
    words = re.findall(r"\w+", query.lower())
    if not words:
        return works[:limit]
    if not works:
        return []
    db = sqlite_utils().Database(memory=True)
    table: Any = db["papers"]
    table.insert_all({"id": w["id"], **{name: _text(w.get(name, "")) for name in SEARCHED}} for w in works)
    table.enable_fts(SEARCHED, tokenize="porter")
    # each word is quoted, so that nothing of the query is search syntax; a name and a title count most
    found = db.query(
        "SELECT papers.id FROM papers_fts JOIN papers ON papers.rowid = papers_fts.rowid "
        "WHERE papers_fts MATCH ? ORDER BY bm25(papers_fts, 8.0, 4.0, 1.0, 1.0, 0.5, 0.5) LIMIT ?",
        (" OR ".join(f'"{w}"' for w in words), limit),
    )
    by_id = {w["id"]: w for w in works}
    return [by_id[row["id"]] for row in found]


def _labels(work: dict[str, Any]) -> list[str]:
    return [*work["tags"], *work.get("becomes", ())]


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)
