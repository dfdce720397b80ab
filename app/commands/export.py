"""What leaves a study: recipes, rows of a pool, results."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path

from app.commands.apply import Form
from engine.base.ids import json_text
from engine.data.output import planned
from engine.data.tars import media_root
from engine.data.writing import export_rows
from engine.evidence.recipe_file import find_pool
from engine.journal.metrics import Measured, every
from engine.study.opened import held, open_study
from engine.study.rows import Notice
from engine.study.view import view_study


def pool(folder: Path, wanted: str, out: Path, form: Form, seed: int, workers: int | None, notice: Notice) -> int:
    """Write a pool's rows; how many. Rows are those that a trial of `seed` trains on."""
    output = planned(out, form.name, form.shard_rows, form.force, form.with_media, "jsonl")
    opened = open_study(folder, workers, notice)
    with opened.store, held(opened):
        rows = opened.realise(find_pool(opened, wanted).pool, seed)
        rows.sort()
        return export_rows(
            opened.data.joined, rows, media_root(opened.data.path, opened.state), output, form.with_media
        )


def results(folder: Path, format_: str) -> str:
    """Every measured value: pool (the control is `control`), label, seed, stage, samples, metric, value."""
    opened = view_study(folder)
    rows = [asdict(measured) for measured in every(opened.store, opened.setup)]
    if format_ == "json":
        return json_text(rows, indent=2) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Measured)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
