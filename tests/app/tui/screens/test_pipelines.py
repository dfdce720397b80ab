"""The tree of pipelines, and a job in full, of a folder without a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Tree

from app.tui.reading import pipelines as reading
from app.tui.screens.pipelines import Which, _add_jobs, _in_full
from engine.base.errors import DjsbError, StudyError
from engine.journal import jobs
from engine.journal.jobs import JobResult, JobRow, PipelineRun, SweepTrial
from engine.journal.store import Store, now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with a sweep of two variants, of which one failed."""
    with Store(tmp_path / ".djsb/study.db") as store:
        run = PipelineRun("aaaaaa", "p.yaml", "demo", "one", "{}", "failed", "b failed", now(), folder=str(tmp_path))
        jobs.begin_run(store, run)
        for variant in (1, 2):
            rows = [JobRow("aaaaaa", variant, 1, "p", place, 0, label, "execution_job_configs", "TrainModelHook",
                           "command", outputs='["res"]', after="[]" if label == "a" else '["p.a"]')
                    for place, label in enumerate("ab")]  # fmt: skip
            jobs.plan(store, rows)
            first = jobs.started(store, jobs.save(store, JobRow(**{**vars(rows[0]), "result": f"{variant}" * 8})))
            jobs.finished(
                store, first, JobResult(f"{variant}" * 8, "command", 2.0, "null", "{}", ('"\\u001b[31mred"',)), False
            )
            jobs.put_trial(store, SweepTrial("aaaaaa", variant, '{"x": 1}', "COMPLETE", 0.5))
        jobs.add_lines(store, "22222222", ["it began", "it ended"])
        jobs.failed(store, rows[1], "p.b: no rows are left")
    return tmp_path


def test_jobs_stand_below_their_variants_with_state_and_time(folder: Path) -> None:
    view = reading.opened(folder, StudyError("no study"))
    with view.store:
        snapshot = reading.light(view)
        tree: Tree[Which] = Tree("pipelines")
        _add_jobs(tree.root, snapshot["pipelines"][0])
        first, second = tree.root.children
        assert str(second.label) == 'variant 2 · COMPLETE · 0.5 · {"x": 1}'
        lines = [str(leaf.label) for node in second.children for leaf in node.children]
        assert lines == ["✓ a  command  2 s", "✗ b  command"]
        text = _in_full(reading.job(view, *second.children[0].children[0].data or ())).plain
        assert "[31mred" in text and "\x1b" not in text and "it began\nit ended" in text
        failed = _in_full(reading.job(view, "aaaaaa", 2, 1, 1, 0)).plain
        assert "p.b: no rows are left" in failed and "needs p.a" in failed
        with pytest.raises(DjsbError, match="no longer there"):
            reading.job(view, "aaaaaa", 9, 1, 0, 0)
        assert snapshot["name"] == "demo" and first.children


def test_a_folder_with_neither_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study"):
        reading.opened(tmp_path, StudyError("no study"))
