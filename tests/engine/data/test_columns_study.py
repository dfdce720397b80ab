"""A study of fields: from `djsb init` to pools, with what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from agent import briefing
from app.commands.check import check
from app.commands.init import write_study
from engine.base.errors import OpError
from engine.data import stat_files
from engine.data.apply_recipe import apply_recipe
from engine.data.cuts import keeps
from engine.data.recipes import recipe_yaml
from engine.data.scan import kinds_file
from engine.journal import caches
from engine.settings.data import DatasetSection
from engine.study.inputs import inputs_of
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import silent
from tests.conftest import TEXT_ONLY, Tiny, write_jsonl
from tests.engine.data.test_columns import COLUMNS, dataset, rows


def study(tiny: Tiny, content: list[dict[str, Any]], columns: Any, **more: Any) -> OpenStudy:
    write_jsonl(tiny.train_file, [{"id": i, **row} for i, row in enumerate(content)])
    tiny.set(
        {
            **TEXT_ONLY,
            "ops": {"text_length_filter": {}},
            "dataset": {**TEXT_ONLY["dataset"], "columns": columns, **more},
        }
    )
    return open_study(tiny.study, 1)


def test_words_have_a_pool_each_and_numbers_buckets(tiny: Tiny) -> None:
    with (opened := study(tiny, rows(), COLUMNS)).store:
        labels = {cut.label for cut in opened.cuts if cut.reason is None}
        cuts = {cut.label: cut for cut in opened.cuts}
        rows_of = opened.realise(cuts["language only-en"].pool)
        told = briefing._statistics(opened)
    assert {"similarity low", "big high", "language only-en", "tags=cat only-no"} <= labels
    assert {i % 6 for i in rows_of.tolist()} <= {1, 4, 5}
    assert "its numbers stand for words: 0 en, 1 de, 2 all others" in told
    assert not [label for label in labels if label.startswith("language l")]


def test_an_old_study_keeps_its_ids(tiny: Tiny) -> None:
    with (opened := study(tiny, rows(), {})).store:
        before = opened.setup, opened.data.key, {c.pool.id for c in opened.cuts}
    with (opened := study(tiny, rows(), {"similarity": "number"})).store:
        assert (opened.setup, opened.data.key) == before[:2]
        assert before[2] < {c.pool.id for c in opened.cuts}
    assert "columns" not in DatasetSection(path="a").model_dump(exclude=DatasetSection(path="a").unkeyed)


def test_a_column_half_text_is_told_and_refused_beyond_max_bad(tiny: Tiny) -> None:
    mixed = [{**row, "score": i / 10 if i % 2 else "n/a"} for i, row in enumerate(rows())]
    with (opened := study(tiny, mixed, {"score": "number"})).store, pytest.raises(OpError) as error:
        _ = opened.columns
    assert '120 of 240 rows with score are unfit: row 0: score is no number: "n/a"' in str(error.value)
    with (opened := study(tiny, mixed, {"score": "number"}, max_bad=0.6)).store:
        assert np.isnan(opened.columns["score"].low).sum() == 120
        *_, run = caches.unreadable_statistics(opened.store)
        assert (run.statistic, run.unreadable) == ("score", 120)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"similrity": "number"}, "no row has a similrity; take it out, or name one of: a.b, big,"),
        ({"cluster": {"values": ["0", "1"]}}, "no row of 240 has one of the values of cluster"),
        ({"tags": {"values": ["cat"]}}, "name them as tags"),
        ({"text_len": "number"}, "text_len gives text_len, and so does text_length_filter"),
        ({"a.b": "number"}, "Data-Juicer takes a.b for a field within another"),
    ],
)
def test_what_cannot_be_a_statistic_is_told(tiny: Tiny, columns: Any, what: str) -> None:
    content = [{**row, "text_len": 1, "a.b": 2.0} for row in rows()]
    with (opened := study(tiny, content, columns)).store, pytest.raises(OpError) as error:
        _ = opened.columns
    assert what in str(error.value)


@pytest.mark.parametrize("name", ["a\nb", "[red]", "x" * 10_000, "\x1b[31m", "a'b", "../a", " a", "<b>", ""])
def test_names_that_would_break_tables_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be a statistic"):
        DatasetSection(path="a", columns={name: "number"})
    with pytest.raises(ValidationError, match="cannot name a pool"):
        DatasetSection(path="a", columns={"field": {"values": [name]}})


def test_commas_dots_and_blanks_are_names(tiny: Tiny) -> None:
    content = [{**row, "a, b": i / 3, "meta": {"my score": i / 7}} for i, row in enumerate(rows())]
    with (opened := study(tiny, content, ["a, b", "meta.my score"])).store:
        assert opened.columns["meta.my score"].low[7] == 1
        assert [cut.label for cut in opened.cuts if cut.label.startswith("a, b")][:3] == [
            "a, b low",
            "a, b mid",
            "a, b high",
        ]
        for run in caches.statistic_runs(opened.store):
            assert stat_files.verify(run, opened.state, opened.store, deep=True)[1] is None


@pytest.mark.long
def test_init_proposes_the_fields_and_the_study_keeps_what_it_cuts_after_export(tmp_path: Path) -> None:
    """From Parquet to the rows that an exported recipe keeps."""
    content = [{**row, "text_len": 7.5 + i % 9, "a\nb": i / 7} for i, row in enumerate(rows())]
    file = dataset(tmp_path, content).path
    study_file, notes = write_study(tmp_path / "study", file, None, None, False)
    text = study_file.read_text()
    for part in ("punsafe: number, similarity: number", "language: {values: [en, ", "tags: {tags:"):
        assert part in text
    assert "columns that are statistics: similarity, punsafe, big, language, cluster, tags" in notes
    assert any("text_len: it is called like the statistic of text_length_filter" in note for note in notes)
    assert any("'a\\nb': its name cannot be a statistic's" in note for note in notes)
    with (opened := open_study(tmp_path / "study", 1)).store:
        assert not check(tmp_path / "study", 1, silent)["problems"]
        cuts = {cut.label: cut for cut in opened.cuts if cut.reason is None}
        for label in ("similarity low", "punsafe low", "punsafe high", "language only-en"):
            part = cuts[label].slice
            kept = np.flatnonzero(keeps(part, opened.columns[part.statistic]) & opened.scan.good)
            out = tmp_path / "out.jsonl"
            recipe = recipe_yaml([part], opened.study.dataset, name=label)
            apply_recipe(recipe, "r.yaml", file, out, root=tmp_path, workers=1, overwrite=True)
            assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [f"row {i}" for i in kept]
        tag = next(cut.slice for label, cut in cuts.items() if label.startswith("tags=cat"))
        with pytest.raises(OpError, match="djsb export pool"):
            recipe_yaml([tag], opened.study.dataset, name="tag")


def test_check_tells_what_the_fields_hold(tiny: Tiny) -> None:
    content: list[dict[str, Any]] = [
        {
            **row,
            "score": None if i % 4 == 0 else "0.5" if i % 4 == 1 else i / 7,
            "grade": i / 3 if i % 2 else "n/a",
            "code": f"x{i}",
            "meta": {"p": 1.5, "half": "?" if i % 2 else 2},
        }
        for i, row in enumerate(rows())
    ]
    columns = {"score": "number", "language": {"values": ["en", "de"]}, "meta.p": "number"}
    with (opened := study(tiny, content, columns)).store:
        first = [i.line for i in inputs_of(opened)]
        assert not [i.problem for i in inputs_of(opened) if i.problem]
        kinds_file(opened.data, opened.state).unlink()  # as an older djsb has scanned
        assert [i.line for i in inputs_of(opened)] == first
    for line in (
        "field score: 180 of 240 rows; left out: 60 without a value; numbers, 60 of them written as text",
        "field language: 200 of 240 rows; left out: 40 without a value; pools of en, de; all others are one",
        "field meta.p: 240 of 240 rows; numbers",
    ):
        assert line in first
    note = first[0]
    assert "grade holds numbers and texts: 120 of 240 values are no numbers ('n/a')" in note
    assert "meta.half holds numbers and texts" in note
    assert "code holds" not in note and "score holds" not in note
