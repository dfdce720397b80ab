"""A tracker is in nobody's way, and a study from elsewhere sends nothing anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.commands.check import check
from engine.base.errors import StoreError, StudyError
from engine.journal import trials
from engine.loop.run import run_loop
from engine.settings.study import study_yaml
from engine.settings.track import KINDS
from engine.study.file import parse_study
from engine.study.opened import open_study, silent
from engine.track import process, targets
from tests.conftest import Tiny, run_djsb, the_error
from tests.engine.track.test_export import export, in_database, kept, target, tensorboard

PROGRAMS = {
    "mlflow": "import time; time.sleep(600)",  # it hangs
    "wandb": "raise SystemExit(7)",  # it dies
    "tensorboard": "import sys; sys.argv[1:] = ['exporter']; import runpy; runpy.run_path(ENTRY, run_name='__main__')",
}


def launch(kind: str, log: Any) -> subprocess.Popen[bytes]:
    """A tracker's process, played."""
    code = PROGRAMS[kind].replace("ENTRY", repr(str(process.ENTRY)))
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)


def test_one_that_hangs_one_that_dies_and_one_that_raises_disturb_no_trial(
    stopped: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "launch", launch)
    monkeypatch.setattr(process, "PATIENCE", 2.0)
    monkeypatch.setitem(targets.PACKAGES, "trackio", ("no_such_package",))
    stopped.set({"track": ["mlflow", "wandb", "trackio", "tensorboard"]})
    (stopped.study / "track").mkdir()
    (stopped.study / "track/tensorboard").write_text("no folder")
    with (opened := open_study(stopped.study, 1)).store:
        assert run_loop(opened, until="probe", workers=1).how == "done"
        assert {t.state for t in trials.of_setup(opened.store, opened.setup)} == {"COMPLETE"}
        rows = opened.store.query("SELECT text FROM events WHERE kind = 'track' AND level = 'warning'")
    said = "\n".join(row["text"] for row in rows)
    assert "mlflow: it hangs" in said and "wandb: it ended with 7" in said
    assert "track: trackio needs no_such_package: pip install 'djsb[trackio]'" in said
    assert "tensorboard: " in said and "track/tensorboard" in said
    (stopped.study / "track/tensorboard").unlink()
    export(target(stopped, "tensorboard"))
    assert kept(tensorboard(stopped.study / "track/tensorboard")[0]) == in_database(stopped)


def test_what_is_missing_is_told_before_anything_runs(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(targets.PACKAGES, "mlflow", ("no_such_package",))
    tiny.set({"track": ["mlflow"]})
    assert "track: mlflow needs no_such_package: pip install 'djsb[mlflow]'" in check(tiny.study, 1, silent)["warnings"]


@pytest.mark.parametrize(
    ("track", "says"),
    [
        ({"mlflow": {"uri": "https://else.where"}}, "uri has no place in a study file"),
        ([{"wandb": {"mode": "online"}}], "mode has no place in a study file"),
        ({"trackio": {"dir": "/tmp"}}, "dir has no place in a study file"),
        (["comet"], "comet is no tracker; choose from mlflow, wandb, trackio, tensorboard"),
        (["wandb", "wandb"], "wandb stands twice"),
        ({"mlflow": {"experiment": "a/../b"}}, "track.mlflow.experiment"),
    ],
)
def test_a_study_names_no_place(track: Any, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        parse_study(f"name: x\ndataset: {{path: a.jsonl}}\nops: {{}}\ntrack: {track}\n")


@pytest.mark.parametrize("track", ["mlflow", "[mlflow, {wandb: {project: x}}]", "{tensorboard: }", "{}"])
def test_trackers_are_written_and_read_alike(track: str) -> None:
    study = parse_study(f"name: x\ndataset: {{path: a.jsonl}}\nops: {{}}\ntrack: {track}\n")
    again = parse_study(study_yaml(study))
    assert again.track == study.track and type(study).model_validate_json(study.model_dump_json()) == study


def test_a_link_that_leads_out_is_refused(stopped: Tiny, tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    (stopped.study / "track").mkdir()
    (stopped.study / "track/tensorboard").symlink_to(out)
    with pytest.raises(StoreError, match="leads out of"):
        targets.targets(open_study(stopped.study).study, stopped.study, ["tensorboard"])
    assert not list(out.iterdir())


def test_each_gets_its_own_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "OPENAI_API_KEY", "TRACKIO_SPACE_ID"):
        monkeypatch.setenv(name, "very-secret-value")
    got = {kind: {n for n, v in targets.environment(kind).items() if v == "very-secret-value"} for kind in KINDS}
    assert got == {
        "mlflow": {"MLFLOW_TRACKING_TOKEN"}, "wandb": {"WANDB_API_KEY"}, "trackio": set(), "tensorboard": set()
    }  # fmt: skip


def test_a_command_without_a_tracker_says_how_to_name_one(stopped: Tiny) -> None:
    assert "name one: djsb track --to mlflow" in the_error(run_djsb("track", stopped.study))
    assert run_djsb("track", stopped.study, "--to", "comet").returncode == 2
