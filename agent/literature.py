"""The survey's list of works on data-model co-development: titles and taxonomy tags, with full-text search.

`papers.jsonl` is the paper list of "The Synergy between Data and Multi-Modal Large Language Models: A Survey from
Co-Development Perspective". Needs no study, no key and no language model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from engine.journal.schema import sqlite_utils

PAPERS = Path(__file__).resolve().parent / "papers.jsonl"


def all_papers() -> list[dict[str, Any]]:
    """Every work: id, title, tags."""
    return [json.loads(line) for line in PAPERS.read_text(encoding="utf-8").splitlines()]


def search(query: str = "", tag: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Works with any word of the query in title or tags, best first; all of a tag for an empty query.

    tag: a part of a tag's path, in any case (`Mixture`, `data4model/scaling`).
    """
    works = [w for w in all_papers() if tag is None or any(tag.lower() in t.lower() for t in w["tags"])]
    words = re.findall(r"\w+", query.lower())
    if not words:
        return works[:limit]
    db = sqlite_utils().Database(memory=True)
    table: Any = db["papers"]
    table.insert_all({"id": w["id"], "title": w["title"], "tags": " ".join(w["tags"])} for w in works)
    if not works:
        return []
    table.enable_fts(["title", "tags"], tokenize="porter")
    # each word is quoted, so that nothing of the query is search syntax
    found = db.query(
        "SELECT papers.id FROM papers_fts JOIN papers ON papers.rowid = papers_fts.rowid "
        "WHERE papers_fts MATCH ? ORDER BY bm25(papers_fts, 4.0, 1.0) LIMIT ?",
        (" OR ".join(f'"{w}"' for w in words), limit),
    )
    by_id = {w["id"]: w for w in works}
    return [by_id[row["id"]] for row in found]
