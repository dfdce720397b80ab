"""What leaves a study: recipes, rows of a pool, results; and a recipe run on other data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.cycles import last_recipe
from engine.errors import OpError, StudyError
from engine.open_study import EngineLock, Notice, OpenStudy, open_study, view_study
from engine.pools import Pool, pool_from_json
from engine.store import Row

OURS = "# djsb study "  # how every recipe that is written here begins


def find_pool(opened: OpenStudy, wanted: str) -> tuple[Pool, str]:
    """A stored pool and its label by the beginning of its id.

    Raises: StudyError when there is none, or several.
    """
    rows = [r for r in opened.store.query("SELECT id, content, label FROM pools") if r["id"].startswith(wanted)]
    if len(rows) != 1:
        what = "no pool begins" if not rows else f"{len(rows)} pools begin"
        raise StudyError(f"{what} with {wanted!r}; djsb rank names them")
    return pool_from_json(json.loads(rows[0]["content"])), rows[0]["label"]


def recipe(folder: Path, wanted: str | None) -> str:
    """A pool's recipe as YAML; of the confirmed recipe when no pool is named."""
    from engine.recipes import recipe_yaml

    opened = view_study(folder)
    best = last_recipe(opened)
    if wanted is None:
        if best is None:
            raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage, or name a pool with --pool")
        wanted = str(best["pool"])
    pool, label = find_pool(opened, wanted)
    if len(pool.layers) > 1:
        raise StudyError(f"pool {pool.id} is a union of layers, which no single recipe keeps; export its rows instead")
    header = [f"djsb study {opened.study.name}, pool {pool.id}: {label}"]
    if best is not None and pool.id == best["pool"]:
        header += [
            *([f"of cycle {best['cycle']}, whose trials started from a checkpoint"] if best["cycle"] > 1 else []),
            f"change against the control: {best['change']:+.1f} % [{best['ci_low']:+.1f}, {best['ci_high']:+.1f}] "
            f"on {best['seeds']} fresh seeds",
            *(f"  {name}: {change:+.1f} %" for name, change in best["metrics"].items()),
            f"keeps {best['kept']} of {best['rows']} rows of {opened.study.dataset.path}",
            f"repetition: on average, up to ×{best['repetition']} did at least as well as adding lower-ranked rows"
            if best["repetition"] > 1
            else "repetition: no rate did as well as adding lower-ranked rows, or none was tried",
        ]
    return recipe_yaml(
        pool.slices,
        opened.study.dataset,
        name=opened.study.name,
        header=header,
        mappers=pool.mappers,
        root=opened.folder,
    )


def write_recipe(folder: Path) -> Path | None:
    """Write the confirmed recipe to `folder/recipe.yaml`; None (and no file) when there is none."""
    from engine.recipes import one_line

    file = folder / "recipe.yaml"
    opened = view_study(folder)
    ours = not file.exists() or file.read_text(encoding="utf-8", errors="replace").startswith(OURS)
    if not ours:
        raise StudyError(f"{file} was not written by djsb; move it away, or export elsewhere with djsb export recipe")
    if last_recipe(opened) is None:
        file.unlink(missing_ok=True)  # a recipe that no longer holds must not lie about
        return None
    try:
        text = recipe(folder, None)
    except OpError as error:  # it is confirmed, and no recipe of Data-Juicer says the same
        text = f"{OURS}{one_line(opened.study.name)}: {one_line(str(error))}\n"
    file.write_text(text, encoding="utf-8")
    return file


def pool(
    folder: Path, wanted: str, out: Path, format_: str, seed: int, force: bool, workers: int | None, notice: Notice
) -> int:
    """Write a pool's rows; how many. Rows are those that a trial of `seed` trains on."""
    if out.exists() and not force:
        raise StudyError(f"{out} is there already; give another file, or replace it with --force")
    opened = open_study(folder, workers, notice)
    with opened.store, EngineLock(opened.state):
        chosen, _ = find_pool(opened, wanted)
        rows = opened.realise(chosen, seed)
        rows.sort()
        taken = opened.data.take(rows)
        scratch = out.with_name(out.name + ".tmp")
        try:
            (_write_jsonl if format_ == "jsonl" else _write_parquet)(taken, scratch)
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
        return len(rows)


def _write_jsonl(rows: Iterable[Row], file: Path) -> None:
    with file.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, default=_refuse_bytes) + "\n")


def _refuse_bytes(value: Any) -> Any:
    raise StudyError(f"a field holds {type(value).__name__}, which JSON cannot; export with --format parquet")


def _write_parquet(rows: Iterable[Row], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def results(folder: Path, format_: str) -> str:
    """Every measured value: pool (the control is `control`), label, seed, stage, samples, metric, value."""
    opened = view_study(folder)
    rows = opened.store.query(
        "SELECT CASE p.kind WHEN 'control' THEN 'control' ELSE p.id END AS pool, p.label, t.seed, t.stage, t.samples, "
        "t.horizon, m.name AS metric, m.value, t.seconds, t.device, t.id AS trial FROM trials t "
        "JOIN pools p ON p.id = t.pool JOIN metrics m ON m.trial = t.id WHERE t.context = ? AND t.state = 'COMPLETE' "
        "ORDER BY t.stage, p.id, t.seed, m.name",
        (opened.context,),
    )
    if format_ == "json":
        return json.dumps(rows, indent=2) + "\n"
    text = io.StringIO()
    names = ["pool", "label", "seed", "stage", "samples", "horizon", "metric", "value", "seconds", "device", "trial"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def apply(recipe_file: Path, data: Path, out: Path, force: bool) -> Row:
    """Run a recipe on a full dataset; what it did."""
    from engine.apply import apply_recipe

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
