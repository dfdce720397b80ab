"""Fields of the data as statistics: their values, the pools of words, and recipes that keep the same rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.apply_recipe import apply_recipe
from engine.data.columns import column_runs, read_columns
from engine.data.cuts import Column, keeps
from engine.data.datajuicer import load_op
from engine.data.dataset import Dataset
from engine.data.op_values import Job
from engine.data.recipes import recipe_yaml
from engine.records.pool import Slice
from engine.settings.data import DatasetSection
from tests.engine.data.test_recipes import dj_process, write_jsonl

COLUMNS = {
    "similarity": "number",
    "punsafe": "number",
    "big": "number",
    "language": {"values": ["en", "de"]},
    "cluster": {"values": [0, 1, 2]},
    "tags": {"tags": ["cat", "dog"]},
}


def rows(n: int = 240) -> list[dict[str, Any]]:
    """Numbers with zeros, nulls and more than ten decimals; words, some of them none; whole numbers beyond 2^53."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        found.append({
            "text": f"row {i}",
            "similarity": None if i % 17 == 0 else float(rng.normal()) if i % 3 else round(float(rng.normal()), 1),
            "punsafe": 0.0 if i % 4 == 0 else float(rng.random()) ** 3,
            "big": 2**53 + i if i % 5 else -i,
            "language": [None, "en", "de", "fr", "en", "en"][i % 6],
            "cluster": i % 5,
            "tags": [None, [], ["cat"], ["cat", "dog"], ["bird"]][i % 5],
        })  # fmt: skip
    return found


def dataset(folder: Path, content: list[dict[str, Any]], columns: Any = COLUMNS, **more: Any) -> Dataset:
    """As Parquet, with those fields as statistics."""
    file = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(content), file, row_group_size=100)
    return Dataset(file, DatasetSection(path=file.name, columns=columns, **more))


def values(data: Dataset) -> dict[str, np.ndarray]:
    """Statistic → its values."""
    runs = column_runs(data.fields, data)
    *_, lines, _, _ = read_columns(Job(data, data.path.parent, tuple(runs), 0, len(data), np.array([], np.int64)))
    return {name: lines[run.key][2 * i] for run in runs for i, name in enumerate(run.statistics)}


def slice_of(data: Dataset, name: str, **bounds: Any) -> Slice:
    """A slice of a field's values."""
    run = next(run for run in column_runs(data.fields, data) if name in run.statistics)
    return Slice(run.name, name, params=run.params, **bounds)


def column(line: np.ndarray) -> Column:
    """One value a row."""
    return Column(line, line)


def test_values_are_those_of_data_juicer(tmp_path: Path) -> None:
    content = rows()
    data = dataset(tmp_path, content)
    found = values(data)
    for name in ("similarity", "punsafe", "big"):
        op = load_op("specified_numeric_field_filter", {"field_key": name})
        theirs = [op.compute_stats_single({**row, "__dj__stats__": {}})["__dj__stats__"][name] for row in content]
        ours = found[name].tolist()
        for a, b in zip(ours, theirs, strict=True):
            assert math.isnan(a) if b is None else abs(a - float(b)) <= 5.1e-11
    assert found["language"][:4].tolist()[1:] == [0, 1, 2]
    assert math.isnan(found["language"][0])
    assert found["tags=dog"][1:5].tolist() == [0, 0, 1, 0]


def test_parquet_and_jsonl_have_the_same_values(tmp_path: Path) -> None:
    data = dataset(tmp_path, rows())
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    other = values(Dataset(file, data.fields))
    for name, line in values(data).items():
        np.testing.assert_array_equal(line, other[name])


SLICES: list[tuple[str, dict[str, Any]]] = [
    ("similarity", {"low": 0.2}),
    ("similarity", {"high": 0.5}),
    ("similarity", {"low": -0.4, "high": 0.3}),
    ("similarity", {"low": -0.4, "high": -0.1, "outside": True}),
    ("similarity", {"low": -0.4, "high": 0.1, "outside": True}),
    ("similarity", {}),
    ("punsafe", {"high": 0.0, "high_closed": True}),
    ("punsafe", {"low": 0.0, "low_closed": False}),
    ("big", {"low": float(2**53 + 10), "high": float(2**53 + 100)}),
    ("language", {"low": 0, "high": 0, "high_closed": True}),
    ("language", {"low": 0, "high": 0, "high_closed": True, "outside": True}),
    ("language", {"low": 2, "high": 2, "high_closed": True}),
    ("cluster", {"low": 0, "high": 1, "high_closed": True}),
]


@pytest.mark.parametrize(("name", "bounds"), SLICES)
def test_djsb_apply_keeps_the_rows_of_a_slice(tmp_path: Path, name: str, bounds: dict[str, Any]) -> None:
    data = dataset(tmp_path, rows())
    part = slice_of(data, name, **bounds)
    line = values(data)[name]
    kept = np.flatnonzero(keeps(part, column(line)))
    assert 0 < len(kept) < len(data)
    out = tmp_path / "out.jsonl"
    apply_recipe(recipe_yaml([part], data.fields, name="r"), "r.yaml", data.path, out, root=tmp_path, workers=1)
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [f"row {i}" for i in kept]


TOGETHER: list[list[tuple[str, dict[str, Any]]]] = [
    [SLICES[0], SLICES[7], SLICES[9]],
    [SLICES[2], SLICES[6], SLICES[10]],
    [SLICES[4], SLICES[11], SLICES[12]],
    [SLICES[8], ("similarity", {"low": -0.4, "high": -0.1, "outside": True})],
    [("similarity", {"low": 0.2, "high": 0.9, "outside": True}), ("language", {"low": 1})],
]


# the last holds what is hardest: rows outside the bounds, beside one bound only; the others are long
EACH = [
    pytest.param(("jsonl", "parquet")[i % 2], t, marks=[pytest.mark.long] * (i < 4)) for i, t in enumerate(TOGETHER)
]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "chosen"), EACH)
def test_dj_process_keeps_the_rows_of_slices(tmp_path: Path, chosen: Any, form: str) -> None:
    data = dataset(tmp_path, rows())
    file = data.path if form == "parquet" else write_jsonl(tmp_path / "rows.jsonl", rows())
    parts, lines = [slice_of(data, name, **bounds) for name, bounds in chosen], values(data)
    kept = np.logical_and.reduce([keeps(part, column(lines[part.statistic])) for part in parts])
    assert 0 < kept.sum() < len(kept)
    theirs = dj_process(tmp_path, recipe_yaml(parts, data.fields, name="r"), file)
    assert [row["text"] for row in theirs] == [f"row {i}" for i in np.flatnonzero(kept)]
