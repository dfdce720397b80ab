"""What leaves a study: recipes, rows of a pool, results; and a recipe run on other data."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path

from engine.base.durable import replaced
from engine.base.errors import StudyError
from engine.base.ids import json_text
from engine.data.rows_file import write_rows
from engine.evidence.recipe_file import find_pool
from engine.journal.metrics import Measured, every
from engine.journal.store import Row
from engine.study.opened import Notice, held, open_study
from engine.study.view import view_study


def pool(
    folder: Path, wanted: str, out: Path, format_: str, seed: int, force: bool, workers: int | None, notice: Notice
) -> int:
    """Write a pool's rows; how many. Rows are those that a trial of `seed` trains on."""
    if out.exists() and not force:
        raise StudyError(f"{out} is there already; give another file, or replace it with --force")
    opened = open_study(folder, workers, notice)
    with opened.store, held(opened):
        rows = opened.realise(find_pool(opened, wanted).pool, seed)
        rows.sort()
        with replaced(out) as scratch:
            write_rows(opened.data, rows, scratch, form=format_)
        return len(rows)


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


def apply(recipe_file: Path, data: Path, out: Path, force: bool) -> Row:
    """Run a recipe on a full dataset; what it did."""
    from engine.data.apply_recipe import apply_recipe

    try:
        text = recipe_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{recipe_file} is no text file; give a recipe's YAML") from error
    done = apply_recipe(text, str(recipe_file), data.resolve(), out, root=recipe_file.resolve().parent, overwrite=force)
    return {
        "rows_in": done.rows_in, "rows_out": done.rows_out, "quarantined": done.quarantined,
        **({"rewritten": done.rewritten, "left_as_they_were": dict(done.kept)} if done.rewritten or done.kept else {}),
        "bad": [{"row": row, "reason": why} for row, why in done.bad[:100]], "out": str(out),
    }  # fmt: skip
