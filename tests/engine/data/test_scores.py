"""Files of scores beside the data: joined by a key, told, refused, and written out as fields."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.commands.apply import Form
from app.commands.check import check
from app.commands.export import pool
from engine.base.errors import DjsbError
from engine.data.apply_recipe import apply_recipe
from engine.data.cuts import keeps
from engine.data.dataset import Dataset
from engine.data.recipes import recipe_yaml
from engine.journal import pools
from engine.settings.data import DatasetSection, ScoreFileSection
from engine.study.inputs import inputs_of
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import silent
from tests.conftest import TEXT_ONLY, Tiny, write_jsonl

N = 240


def content() -> list[dict[str, Any]]:
    """Rows whose uid is a text."""
    return [{"id": i, "uid": f"{i:05d}", "text": f"row number {i} " * (1 + i % 7)} for i in range(N)]


def score(i: int) -> float:
    """What the file says of a row."""
    return round(((i * 7919) % 241) / 241 + 0.01, 6)


def scores(skip: int = 0, more: int = 5) -> list[dict[str, Any]]:
    """Of all rows but the first, in another order, and of rows that the data lack."""
    found = [
        {"uid": f"{i:05d}", "clip_score": score(i), "lang": "en" if i % 3 else "de", "url": f"http://x/{i}"}
        for i in range(skip, N + more)
    ]
    return sorted(found, key=lambda row: (row["clip_score"], row["uid"]))


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    """In the form of its name."""
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=60)
    elif file.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(str(v) for v in row.values()) for row in rows)]
        file.write_text("\n".join(lines) + "\n")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def study(tiny: Tiny, section: Any, rows: list[dict[str, Any]] | None = None) -> OpenStudy:
    """One OP, and the scores."""
    write_jsonl(tiny.train_file, content() if rows is None else rows)
    ops = {"text_length_filter": {}}
    tiny.set({**TEXT_ONLY, "ops": ops, "dataset": {**TEXT_ONLY["dataset"], "scores": section}})
    return open_study(tiny.study, 1)


@pytest.mark.parametrize("name", ["s.parquet", "s.tsv", "s.jsonl.gz"])
def test_columns_of_the_file_are_statistics(tiny: Tiny, name: str) -> None:
    write(tiny.study / name, scores(skip=8))
    with (opened := study(tiny, {"path": name, "key": "uid"})).store:
        assert set(opened.columns) == {"text_len", "clip_score", "lang"}
        line = opened.columns["clip_score"].low
        assert np.isnan(line[:8]).all()
        np.testing.assert_allclose(line[8:], [score(i) for i in range(8, N)])
        labels = {cut.label for cut in opened.cuts if cut.reason is None}
        assert {"clip_score low", "clip_score high", "lang only-en"} <= labels
        (told,) = [i for i in inputs_of(opened) if i.input == f"scores {name}"]
        assert told.line.startswith(
            f"scores {name}: {N - 8} of {N - 3} rows; left out: 5 uid that the data lack; joined by uid; 8 of {N} rows "
            "of the data have no score; clip_score (number), lang (words)"
        )
        assert told.problem is None


def test_whole_numbers_and_texts_of_them_are_one_key(tiny: Tiny) -> None:
    rows = [{**row, "uid": i} for i, row in enumerate(content())]
    write(tiny.study / "s.jsonl", [{"key": str(i), "a": score(i)} for i in range(N)])
    with (opened := study(tiny, [{"path": "s.jsonl", "key": "uid", "file_key": "key"}], rows)).store:
        assert not np.isnan(opened.columns["a"].low).any()


def test_scores_change_no_id_and_other_scores_are_other_pools(tiny: Tiny) -> None:
    write(tiny.study / "s.parquet", scores())
    with (opened := study(tiny, [])).store:
        before = opened.setup, {c.pool.id for c in opened.cuts}
    with (opened := study(tiny, {"path": "s.parquet", "key": "uid"})).store:
        assert opened.setup == before[0]
        ids = {c.pool.id for c in opened.cuts}
        assert before[1] < ids
    write(tiny.study / "s.parquet", [{**row, "lang": "fr"} for row in scores()])
    with (opened := study(tiny, {"path": "s.parquet", "key": "uid"})).store:
        others = {c.pool.id for c in opened.cuts}
        assert (ids & others) == before[1]


@pytest.mark.parametrize(
    ("rows", "section", "what"),
    [
        ([*scores(), scores()[3]], {"key": "uid"}, " stands in rows 3 and 245 of s.jsonl as uid; leave one row a key"),
        ([{"uid": f"x{i}", "a": i / 7} for i in range(9)], {"key": "uid"},
         "s.jsonl has no score of any row: uid is 00000, 00001, 00002 in the data, and x0, x1, x2 there; set key"),
        (scores(), {"key": "uuid"}, "s.jsonl has no field 'uuid'; set key or file_key: it has: uid, clip_score"),
        (scores(), {"key": "uuid", "file_key": "uid"}, "the data have no field 'uuid'; set key to one of: id,"),
        ([{"uid": f"{i:05d}", "text": i / 3} for i in range(9)], {"key": "uid"},
         "text stands in s.jsonl and in the data; rename it there"),
        ([{"uid": f"{i}", "a": f"free text {i}"} for i in range(9)], {"key": "uid"}, "holds numbers or few words"),
        (scores(), {"key": "uid", "columns": ["similarity"]}, "s.jsonl has no field 'similarity'; it has: uid"),
        ([{"uid": f"{i:05d}", "a": i / 7 if i < 20 else "n/a"} for i in range(30)], {"key": "uid", "columns": ["a"]},
         "a in s.jsonl holds values of several kinds"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused(tiny: Tiny, rows: Any, section: Any, what: str) -> None:
    write(tiny.study / "s.jsonl", rows)
    with (opened := study(tiny, {"path": "s.jsonl", **section})).store, pytest.raises(DjsbError) as error:
        _ = opened.columns
    assert what in str(error.value)
    assert "\n" not in str(error.value)
    found = check(tiny.study, 1, silent)
    assert any(what in problem for problem in found["problems"])


def test_recipes_of_scores_keep_the_same_rows(tiny: Tiny, tmp_path: Path) -> None:
    file = write(tiny.study / "s.parquet", scores(skip=8))
    with (opened := study(tiny, {"path": "s.parquet", "key": "uid"})).store:
        cuts = {cut.label: cut for cut in opened.cuts}
        for label in ("clip_score high", "lang only-de"):
            part = cuts[label].slice
            text = recipe_yaml([part], opened.study.dataset, name="x")
            out = tmp_path / f"{part.statistic}.jsonl"
            section = ScoreFileSection(path=str(file), key="uid")
            apply_recipe(text, "r", tiny.train_file, out, scores=[section])
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            kept = np.flatnonzero(keeps(part, opened.columns[part.statistic]))
            assert [row["id"] for row in rows] == kept.tolist()
            assert rows[0]["clip_score"] == score(rows[0]["id"])
        text = recipe_yaml([cuts["clip_score high"].slice], opened.study.dataset, name="x")
        everything = tmp_path / "all.jsonl"
        longer = "process: [{text_length_filter: {min_len: 1, max_len: 9999}}]"
        apply_recipe(longer, "r", tiny.train_file, everything, scores=[section])
        kept = np.flatnonzero(keeps(cuts["clip_score high"].slice, opened.columns["clip_score"]))
    with pytest.raises(DjsbError, match="no row has a clip_score"):
        apply_recipe(text, "r", tiny.train_file, tmp_path / "none.jsonl")
    again = tmp_path / "again.jsonl"
    apply_recipe(text, "r", everything, again)  # what was written has the scores as fields
    assert [json.loads(line)["id"] for line in again.read_text().splitlines()] == kept.tolist()


def test_rows_of_a_pool_have_their_scores(tiny: Tiny, tmp_path: Path) -> None:
    write(tiny.study / "s.parquet", scores(skip=8))
    with (opened := study(tiny, {"path": "s.parquet", "key": "uid"})).store:
        opened.record(measured=False)
        cut = next(cut for cut in opened.cuts if cut.label == "clip_score high")
        pools.add(opened.store, cut.pool, cut.label, "single")
    out = tmp_path / "p.parquet"
    pool(tiny.study, cut.pool.id, out, Form(), 0, 1, silent)
    table = pq.read_table(out).to_pylist()
    assert all(row["clip_score"] == score(row["id"]) for row in table)


def test_scores_of_many_rows_take_16_bytes_a_row(tmp_path: Path) -> None:
    n = 50_000
    order = np.random.default_rng(0).permutation(n)
    pq.write_table(pa.table({"uid": [f"k{i}" for i in order], "s": order / n}), tmp_path / "s.parquet")
    (tmp_path / "d.jsonl").write_text("".join(f'{{"text": "t", "uid": "k{i}"}}\n' for i in range(n)))
    section = DatasetSection(path="d.jsonl", scores=[{"path": "s.parquet", "key": "uid"}])
    data = Dataset(tmp_path / "d.jsonl", section, tmp_path / "index", tmp_path)
    (table,) = data.scores
    assert table.keys.nbytes + table._order.nbytes == 16 * n
    rows = data.joined.reader.read(40_000, 40_010)
    assert [row["s"] for row in rows] == [i / n for i in range(40_000, 40_010)]
