"""Model scores: a checkpoint's own score of every row is a statistic, once the checkpoint is there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.base.errors import OpError, PoolError, StudyError
from engine.data.recipe_entries import slice_entries
from engine.evidence.recipe_file import recipe, write_recipe
from engine.journal import pools
from engine.journal.results import MODEL_SCORES
from engine.loop import model_scores
from engine.loop.run import run_loop
from engine.proposals.gate import _pool_problem
from engine.proposals.kinds.contract import Refused
from engine.proposals.suggest import draft
from engine.records.experiment import Suggestion
from engine.records.pool import MODEL_SCORE, Layer, Pool
from engine.runner.scheduler import scheduler
from engine.study.file import parse_study
from engine.study.opened import open_study
from engine.tasks.clip.task import ClipTask
from engine.tasks.contract import Job, Report
from engine.tasks.lm.task import LmTask
from tests.conftest import COLOURS, Row, Tiny, write_jsonl

torch.set_num_threads(1)
SILENT = Report(lambda _kind, _content: None)


def mislabel(tiny: Tiny) -> np.ndarray:
    """Every fifth caption names another colour than its picture has; which rows these are."""
    wrong = np.arange(len(tiny.rows)) % 5 == 0
    for i, row in enumerate(tiny.rows):
        own, other = list(COLOURS)[i % 3], list(COLOURS)[(i + 1) % 3]
        row["text"] = f"a {other if wrong[i] else own} thing"
    write_jsonl(tiny.train_file, tiny.rows)
    return wrong


def test_clip_finds_captions_that_do_not_fit(tiny: Tiny, tmp_path: Path) -> None:
    wrong = mislabel(tiny)
    tiny.set({"train": {"learning_rate": 0.002}})
    np.save(tmp_path / "rows.npy", np.flatnonzero(~wrong))
    with (opened := open_study(tiny.study, 1)).store:
        job = Job("t", str(tmp_path / "rows.npy"), 3000, 0, None, str(tmp_path / "out"))
        ClipTask().run(opened.study, opened.prepared, job, SILENT)
        found = ClipTask().score(opened.study, opened.prepared, str(tmp_path / "out"))
    assert found.shape == (len(tiny.rows),)
    assert np.abs(found).max() <= 1 + 1e-6
    assert np.median(found[wrong]) < np.quantile(found[~wrong], 0.25)


def test_lm_gives_the_loss_that_transformers_gives(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["the river runs past the old mill"] * 60 + ["mill the past zq xw river", "the river " * 60, "x"]
    write_jsonl(tiny.train_file, [{"id": i, "text": t} for i, t in enumerate(texts)])
    write_jsonl(tiny.test_file, [{"id": i, "text": texts[0]} for i in range(3)])
    tiny.set({"task": "lm", "dataset": {"images": None}, "evaluation": {"label": None}, "train": {"batch_size": 4}})
    np.save(tmp_path / "rows.npy", np.arange(60))
    with (opened := open_study(tiny.study, 1)).store:
        job = Job("t", str(tmp_path / "rows.npy"), 400, 0, None, str(tmp_path / "out"))
        LmTask().run(opened.study, opened.prepared, job, SILENT)
        found = LmTask().score(opened.study, opened.prepared, str(tmp_path / "out"))
    model, tokenizer = (k.from_pretrained(tmp_path / "out") for k in (AutoModelForCausalLM, AutoTokenizer))
    for row in (0, 60):
        ids = torch.tensor([[1, *tokenizer(texts[row], add_special_tokens=False)["input_ids"], 3]])
        with torch.inference_mode():
            assert found[row] == pytest.approx(float(model(input_ids=ids, labels=ids).loss), abs=1e-4)
    assert np.isfinite(found).all()  # also of the text that is longer than a sequence
    assert found[60] > found[0]


def bucket(statistic: str) -> Suggestion:
    asked: Row = {"kind": "bucket", "slice": {"statistic": statistic, "low": "p40"}}
    return Suggestion.model_validate({"experiment": asked, "reason": "the model knows"})


def test_a_study_learns_what_its_control_thinks_and_the_next_cycle_cuts_by_it(tiny: Tiny) -> None:
    mislabel(tiny)
    tiny.set({"pools": {"model_scores": True}, "ops": {"text_length_filter": {}}, "search": {"strategy": "race"},
              "train": {"epochs": 2}})  # fmt: skip
    with (opened := open_study(tiny.study, 1)).store:
        with pytest.raises(Refused, match="not computed"):
            draft(opened, bucket("model_similarity"), "person")
        run_loop(opened, until="probe", workers=1)
        told = MODEL_SCORES.get(opened.store, opened.setup)
        control = opened.store.one("SELECT t.*, p.kind FROM trials t JOIN pools p ON p.id = t.pool WHERE t.id = ?",
                                   (told.trial,))  # fmt: skip
        assert (control["kind"], control["seed"], control["state"]) == ("control", 0, "COMPLETE")
        (cost,) = opened.store.query("SELECT * FROM costs WHERE kind = 'model_scores'")
        assert cost["seconds"] > 0
        assert not [c for c in opened.cuts if c.slice.op == MODEL_SCORE]  # this cycle's probe had ended
        pool = draft(opened, bucket("model_similarity"), "person").pools[-1].to_pool()
        (cut,) = pool.slices
        assert cut.params == (("checkpoint", told.trial),)
        assert _pool_problem(pool, opened) is None
        values = opened.columns["model_similarity"].value
        assert (values[opened.realise(pool)] >= cut.low).all()
        other = Pool((Layer((type(cut)(**{**asdict(cut), "params": (("checkpoint", "0" * 16),)}),)),), 20)
        assert "other parameters" in (_pool_problem(other, opened) or "")  # another checkpoint is another statistic
        with pytest.raises(OpError, match="djsb export pool"):
            slice_entries(cut)
        after = opened.following(told.trial)
        with scheduler(opened, 1e9, 1) as at_work:
            at_work.enter(after)
            model_scores.begin(after, at_work)
        assert np.array_equal(after.realise(pool), opened.realise(pool))  # the pool names its checkpoint itself
        lost = Pool((Layer((type(cut)(**{**asdict(cut), "params": (("checkpoint", "0" * 16),)}),)),), 20)
        with pytest.raises(PoolError, match="not in the cache"):
            after.realise(lost)
        labels = {c.label for c in after.cuts}
        assert {f"model_similarity {b}" for b in ("low", "mid", "high")} <= labels
        pools.add(opened.store, pool, "p", "single")
    with (again := open_study(tiny.study, 1)).store:  # it is read, not computed again
        assert np.array_equal(again.columns["model_similarity"].value, values, equal_nan=True)
    with pytest.raises(OpError, match="no OP of Data-Juicer computes"):
        recipe(tiny.study, pool.id)
    assert write_recipe(tiny.study) is None


def test_a_task_that_scores_no_rows_is_told_so() -> None:
    text = """
        {name: s, task: t2v, pools: {model_scores: true}, ops: {}, dataset: {path: d.jsonl, videos: v},
         evaluation: {path: e.jsonl}}
    """
    with pytest.raises(StudyError, match=r"pools\.model_scores: task t2v scores no single rows"):
        parse_study(text)
