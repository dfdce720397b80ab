"""Rewritten pools from proposal to recipe: the same rows and seeds as their control, judged like any other pool."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evidence.mapped import judged
from engine.evidence.ranking import rank
from engine.loop import run as loop
from engine.proposals.suggest import suggest
from engine.records.experiment import Suggestion
from engine.review import decisions
from engine.runner.accounts import Accounts
from engine.search.grid import candidates
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny, run_djsb

EARLY = {"combine": {"top": 1, "clusters": 0}, "scale": {"rates": []}, "confirm": {"seeds": 2, "candidates": 1}}
NOTHING = {"kind": "mapper", "op": "clean_ip_mapper"}
TAGS = {"kind": "mapper", "op": "remove_specific_chars_mapper", "params": {"chars_to_remove": "aeo"}}


def asked(opened: OpenStudy, **experiment: Any) -> tuple[str, str, str]:
    suggestion = Suggestion.model_validate({"experiment": experiment, "reason": "as a test"})
    return suggest(opened, suggestion, "person", Accounts(opened, 3600.0))


@pytest.fixture(scope="module")
def mapped(probed_template: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A probed study with two rewritten pools, approved and run; not to be changed."""
    import shutil

    copy = replace(probed_template, root=tmp_path_factory.mktemp("mapped") / "study")
    shutil.copytree(probed_template.root, copy.root)
    copy.set({"search": {"seeds": 2}, **EARLY})
    with (opened := open_study(copy.study, 1)).store:
        for experiment in (NOTHING, TAGS):
            key, status, reason = asked(opened, **experiment)
            assert status == "queued", reason
            decisions.decide(opened, key, "approve", "person test", "to see")
        assert loop.run_loop(opened, until="scale", workers=1).how == "done"
    return copy


def rows(study: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(study / ".djsb" / "study.db")) as db:
        return db.execute(sql).fetchall()


def test_a_mapper_that_changes_nothing_gives_the_controls_results_to_the_bit(mapped: Tiny) -> None:
    sql = (
        "SELECT t.seed, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id JOIN pools p ON p.id = t.pool "
        "WHERE {} AND t.seed IN (SELECT seed FROM trials x JOIN pools y ON y.id = x.pool WHERE y.kind = 'mapper') "
        "AND t.samples IN (SELECT samples FROM trials x JOIN pools y ON y.id = x.pool WHERE y.kind = 'mapper') "
        "ORDER BY t.seed, m.name"
    )
    same = rows(mapped.study, sql.format("p.label LIKE '%clean_ip%'"))
    tags = rows(mapped.study, sql.format("p.label LIKE '%remove_specific_chars%'"))
    control = rows(mapped.study, sql.format("p.kind = 'control'"))
    assert same and same == control and tags != control


def test_rewritten_rows_are_tokenised_anew_with_the_studys_tokenizer_and_images_are_shared(mapped: Tiny) -> None:
    caches = sorted((mapped.study / ".djsb" / "cache").glob("clip-*"), key=lambda c: c.stat().st_mtime)
    assert len(caches) == 3
    own, *others = caches
    words = [np.load(c / "train-tokens.npy") for c in caches]
    for other in others:
        assert (own / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
        assert (own / "train-images.npy").stat().st_ino == (other / "train-images.npy").stat().st_ino
    assert any(not np.array_equal(words[0][w[:, 0] > 0], w[w[:, 0] > 0]) for w in words[1:])


def test_it_is_evidence_against_the_same_rows_with_paired_seeds_and_the_rewriting_is_charged(mapped: Tiny) -> None:
    with (opened := open_study(mapped.study, 1)).store:
        found = {r.pool.mappers[0].op: r for r in rank(opened, ("mapper",))}
        assert {r.effect.seeds for r in found.values()} == {2}
        assert found["clean_ip_mapper"].effect.change == 0
        assert "mapper" not in {r.kind for r in rank(opened)}
        told = {r.label: r for r in judged(opened)}["all rows → remove_specific_chars_mapper(chars_to_remove=aeo)"]
        assert told.against == "all rows" and told.rewritten is not None and told.rewritten.changed > 0
        assert all(m.effect.change for m in candidates(opened))
    assert rows(mapped.study, "SELECT 1 FROM costs WHERE kind = 'mapper' AND seconds > 0")


def test_it_is_shown_before_and_after_and_its_recipe_can_be_applied(mapped: Tiny, tmp_path: Path) -> None:
    shown = run_djsb("show", "mappers", mapped.study)
    assert shown.returncode == 0 and "before: " in shown.stdout and "remove_specific_chars_mapper" in shown.stdout, (
        shown.stderr
    )
    assert len(json.loads(run_djsb("show", "mappers", mapped.study, "--json").stdout)["mappers"]) == 2
    ((pool,),) = rows(mapped.study, "SELECT id FROM pools WHERE label LIKE '%remove_specific_chars%'")
    recipe = tmp_path / "recipe.yaml"
    assert run_djsb("export", "recipe", mapped.study, "--pool", pool, "--out", recipe).returncode == 0
    done = run_djsb("apply", recipe, "--data", mapped.train_file, "--out", tmp_path / "out.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rewritten"] == 240  # every caption has one of the letters
    written = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(written) == 240 and not [t for t in written if set("aeo") & set(t)]
    page = run_djsb("report", mapped.study, "--out", tmp_path / "report")
    assert page.returncode == 0, page.stderr
    assert "before and after" in (tmp_path / "report" / "report.html").read_text()


def test_what_cannot_run_is_refused_with_the_reason(opened: OpenStudy) -> None:
    (opened.folder / "empty").mkdir()
    for experiment, said in (
        ({"kind": "mapper", "op": "image_captioning_mapper"}, "needs local weights"),
        ({"kind": "mapper", "op": "image_captioning_mapper", "params": {"hf_img2seq": "empty"}}, "no config.json"),
        ({**TAGS, "pool": "abcdef"}, "no bucket, combination or mapped pool"),
    ):
        _, status, reason = asked(opened, **experiment)
        assert status == "refused" and said in reason


def test_a_bucket_is_rewritten_against_itself(opened: OpenStudy) -> None:
    cut = next(c for c in opened.cuts if c.reason is None)
    key, status, reason = asked(opened, **TAGS, pool=cut.pool.id)
    assert status == "queued", reason
    row = opened.store.one("SELECT content FROM proposals WHERE id = ?", (key,))
    assert row is not None
    kinds = [p["kind"] for p in json.loads(row["content"])["pools"]]
    assert kinds == ["control", "single", "mapper"]
