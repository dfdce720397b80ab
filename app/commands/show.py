"""One pool, trial, proposal, recipe, lineage or scaling law, as `djsb show` has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.text.lineage import show_lineage, show_scaling
from app.text.mappers_and_prompts import show_mappers, show_prompts
from app.text.printable import say
from engine.base.errors import StudyError
from engine.journal.store import Row
from engine.study.view import view_study


def show(folder: Path, wanted: str) -> Row:
    """One pool, trial or proposal by the beginning of its id, or recipe, lineage, scaling, mappers, prompts."""
    from engine.evidence import prompts as prompting
    from engine.evidence.lineage import lineage
    from engine.evidence.mapped import judged
    from engine.evidence.recipe import answer
    from engine.evidence.transfer import ScalingLaw, scaling_law

    opened = view_study(folder)
    store = opened.store
    if wanted == "scaling":
        return {"what": "scaling", **(scaling_law(opened) or ScalingLaw([], {})).to_json()}
    if wanted == "mappers":
        return {"what": "mappers", "mappers": [m.to_json() for m in judged(opened)]}
    if wanted == "prompts":
        table = prompting.table(opened)
        return {"what": "prompts", "prompts": table and table.to_json()}
    if wanted == "lineage":
        return {"what": "lineage", "lineage": [c.to_json() for c in lineage(opened)]}
    if wanted == "recipe":
        best = answer(opened).recipe
        if best is None:
            raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage")
        return {"what": "recipe", **best.to_json()}
    found = [
        (name, row)
        for name in ("pools", "trials", "proposals")
        for row in store.query(f"SELECT * FROM {name} WHERE id LIKE ? ESCAPE '!' LIMIT 3", (like(wanted),))
    ]
    if not found:
        raise StudyError(f"no pool, trial or proposal begins with {wanted!r}; djsb rank and djsb log name them")
    if len(found) > 1:
        raise StudyError(
            f"{wanted!r} is the beginning of several: {', '.join(r['id'] for _, r in found)}; give more of it"
        )
    name, row = found[0]
    return {"what": name[:-1], **_details(store, name, row)}


def like(text: str) -> str:
    for special in "!%_":
        text = text.replace(special, "!" + special)
    return text + "%"


def _details(store: Any, table: str, row: Row) -> Row:
    if "content" in row:
        row = {**row, "content": json.loads(row["content"])}
    if table == "pools":
        row["trials"] = store.query(
            "SELECT id, seed, samples, stage, state, seconds FROM trials WHERE pool = ?", (row["id"],)
        )
        row["cut"] = store.one("SELECT kept, entropy, verdict, reason FROM pool_cuts WHERE pool = ?", (row["id"],))
    elif table == "trials":
        row["metrics"] = {
            m["name"]: m["value"] for m in store.query("SELECT name, value FROM metrics WHERE trial = ?", (row["id"],))
        }
        row["curve"] = store.query(
            "SELECT name, step, value FROM curve_points WHERE trial = ? ORDER BY name, step", (row["id"],)
        )
        row["costs"] = store.query("SELECT id, device, seconds, at FROM costs WHERE trial = ?", (row["id"],))
        row["checkpoint"] = store.one("SELECT path, bytes, kept FROM checkpoints WHERE trial = ?", (row["id"],))
    else:
        row["decisions"] = store.query("SELECT verdict, who, why, at FROM decisions WHERE proposal = ?", (row["id"],))
        row["trials"] = store.query(
            "SELECT t.id, t.state, t.seed, p.label FROM proposal_trials x JOIN trials t ON t.id = x.trial "
            "JOIN pools p ON p.id = t.pool WHERE x.proposal = ?",
            (row["id"],),
        )
    return row


def show_one(found: Row) -> None:
    """As people read it."""
    if found["what"] == "lineage":
        show_lineage(found["lineage"])
    elif found["what"] == "scaling":
        show_scaling(found)
    elif found["what"] == "mappers":
        show_mappers(found["mappers"])
    elif found["what"] == "prompts":
        show_prompts(found["prompts"])
    else:
        show_fields(found)


def show_fields(found: Row) -> None:
    """A field a line, nested ones as YAML."""
    import yaml

    say(yaml.safe_dump(json.loads(json.dumps(found)), sort_keys=False, allow_unicode=True).rstrip())
