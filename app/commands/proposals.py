"""Proposals from the command line: asking for them, listing them, deciding on them."""

from __future__ import annotations

from pathlib import Path

from app.text.printable import say_table
from engine.base.amounts import format_seconds
from engine.journal.proposals import of_setup
from engine.journal.store import Row
from engine.proposals.queue import proposal_rows
from engine.study.view import view_study


def proposals(folder: Path, status: str | None) -> list[Row]:
    """Every proposal of the study, oldest first; of one status if asked."""
    opened = view_study(folder)
    listed = of_setup(opened.store, opened.setup, None if status is None else (status,))
    return proposal_rows(opened, [p.id for p in listed])


def show_proposals(found: list[Row]) -> None:
    """As people read it."""
    if found:
        say_table(
            [
                [r["id"], r["origin"], r["kind"], r["status"],
                 "–" if r["cost"] is None else format_seconds(r["cost"]), _one_line(r)]
                for r in found
            ],
            ["id", "origin", "kind", "status", "cost", "reason"],
        )  # fmt: skip


def _one_line(row: Row) -> str:
    text = f"{row['gate']} (asked for: {row['reason']})" if row["status"] == "refused" else row["reason"]
    return " ".join(text.split())
