"""A filter by a field whose numbers are texts, "0.83": the rows that Data-Juicer keeps, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.base.errors import DataError
from engine.data.apply_recipe import apply_recipe
from engine.data.datajuicer import load_op
from engine.data.dataset import Dataset
from engine.data.op_values import _stored
from engine.data.recipes import recipe_yaml
from engine.settings.data import DatasetSection
from tests.engine.data.test_columns import slice_of, values
from tests.engine.data.test_recipes import dj_process, write_jsonl

TEXTS = [
    "0.83", "0.5", "0.3", "0.30000000000004", "0.29999999999996", "0.49999999999996", " 0.4 ", "+0.4", "4e-1", "0",
    "0.0", "-0", "1_0", "1e400", "nan", "-inf", "n/a", "", "0,4", "0.123456789012345",
]  # fmt: skip
CELLS: list[Any] = [*TEXTS, 0.4, 0, 0.0, 1, True, False, None, 0.3, 0.5]
BOUNDS: list[dict[str, Any]] = [
    {"min_value": 0.3, "max_value": 0.5},
    {"min_value": 0.3},
    {"max_value": 0.3},
    {"min_value": -1.0, "max_value": 1.0},
    {"min_value": 0.3, "max_value": 0.5, "min_closed_interval": False, "max_closed_interval": False},
    {"min_value": 0.3, "max_value": 0.5, "reversed_range": True},
    {"min_value": 0.1234567890, "max_value": 0.1234567890},
]


def theirs(bounds: dict[str, Any], cells: list[Any]) -> list[int]:
    """Rows that Data-Juicer's OP keeps in a run, which stores what it computes in between."""
    op = load_op("specified_numeric_field_filter", {"field_key": "s", **bounds})
    samples = [op.compute_stats_single({"s": cell, "__dj__stats__": {}}) for cell in cells]
    for sample in samples:
        sample["__dj__stats__"] = {"s": _stored(sample["__dj__stats__"]["s"])}
    return [i for i, sample in enumerate(samples) if op.process_single(sample)]


def ours(folder: Path, bounds: dict[str, Any], cells: list[Any]) -> list[int]:
    """Rows that `djsb apply` keeps."""
    data = write_jsonl(folder / "rows.jsonl", [{"text": f"row {i}", "s": cell} for i, cell in enumerate(cells)])
    recipe = json.dumps({"process": [{"specified_numeric_field_filter": {"field_key": "s", **bounds}}]})
    apply_recipe(recipe, "r.yaml", data, folder / "out.jsonl", overwrite=True, workers=1)
    lines = (folder / "out.jsonl").read_text().splitlines()
    return [int(json.loads(line)["text"].split()[1]) for line in lines]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_the_same_rows_stay(tmp_path: Path, bounds: dict[str, Any]) -> None:
    kept = theirs(bounds, CELLS)
    assert ours(tmp_path, bounds, CELLS) == kept
    assert ours(tmp_path, bounds, TEXTS) == [i for i in kept if i < len(TEXTS)]


@pytest.mark.long
def test_dj_process_keeps_the_rows_of_a_slice_of_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [{"text": f"row {i}", "s": "n/a" if i % 9 == 0 else f"{rng.normal():.6g}"} for i in range(90)]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = Dataset(file, DatasetSection(path=file.name, columns={"s": "number"}, max_bad=0.5))
    part = slice_of(data, "s", low=0.2)
    kept = [f"row {i}" for i in np.flatnonzero(values(data)["s"] >= 0.2)]
    recipe = recipe_yaml([part], data.fields, name="r")
    apply_recipe(recipe, "r.yaml", file, tmp_path / "out.jsonl", workers=1)
    assert [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == kept
    assert [row["text"] for row in dj_process(tmp_path, recipe, file)] == kept


def test_a_condition_on_texts_is_refused(tmp_path: Path) -> None:
    """A slice with 0 in it is a condition, which Data-Juicer cannot compare with texts."""
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"row {i}", "s": str(i / 10)} for i in range(20)])
    data = Dataset(file, DatasetSection(path=file.name, columns={"s": "number"}))
    recipe = recipe_yaml([slice_of(data, "s", high=0.5)], data.fields, name="r")
    with pytest.raises(DataError, match="general_field_filter could not apply"):
        apply_recipe(recipe, "r.yaml", file, tmp_path / "out.jsonl", workers=1)
