"""What trackers have is what the study's database says: each is read back by its own client."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import StoreError
from engine.evidence.answer import answer
from engine.evidence.ranking import leaderboard
from engine.journal import curves, metrics, trials
from engine.study.view import view_study
from engine.track.contract import Target, Tracker
from engine.track.exporter import Exported, Exporter, open_tracker
from engine.track.process import Trackers
from engine.track.records import TrialRun
from tests.conftest import Tiny

Values = Counter[tuple[str, str, int, float]]  # trial, name, step, value


class Killed(BaseException):
    """As if the process had been killed there."""


def in_database(tiny: Tiny) -> Values:
    """Every point and score of trials that were started, as trackers name them."""
    found: Values = Counter()
    with (view := view_study(tiny.study)).store:
        for trial in trials.begun(view.store):
            points = [p for p in curves.of_trial(view.store, trial.id) if p.value is not None]
            found.update((trial.id, f"train/{p.name}", p.step, single(p.value)) for p in points)
            last = max((p.step for p in points), default=0)
            scores = metrics.of_trial(view.store, trial.id)
            found.update((trial.id, f"eval/{n}", last, single(v)) for n, v in scores.items() if v is not None)
    assert len(found) > 5
    return found


def single(value: Any) -> float:
    """A number as TensorBoard keeps it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def kept(values: Values) -> Values:
    """Without costs, which are compared by themselves."""
    return Counter({key: n for key, n in values.items() if not key[1].startswith("cost/")})


def target(tiny: Tiny, kind: Any, **options: Any) -> Target:
    """A tracker in the study's folder."""
    (tiny.study / "track").mkdir(exist_ok=True)
    return Target(kind, tiny.study, "tiny", options.pop("uri", None), options)


def export(to: Target, opening: Callable[[Target], Tracker] = open_tracker) -> Exported:
    """One export, to its end."""
    exporter = Exporter(to, opening=opening)
    try:
        return exporter.once(last=True)
    finally:
        exporter.close()


def tensorboard(folder: Path) -> tuple[Values, str]:
    """All scalars of TensorBoard's files, and the answer."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Values = Counter()
    text = ""
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run), {"scalars": 0, "tensors": 0}, purge_orphaned_data=False)
        events.Reload()
        if run.name == "study":
            text = events.Tensors("answer")[-1].tensor_proto.string_val[0].decode()
            continue
        found.update((run.name, t, e.step, e.value) for t in events.Tags()["scalars"] for e in events.Scalars(t))
    return found, text


def mlflow(uri: str, experiment: str = "tiny") -> tuple[Values, dict[str, Any]]:
    """All metrics of MLflow's runs, and the runs by djsb's ids."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found_experiment = client.get_experiment_by_name(experiment)
    assert found_experiment is not None
    runs = {run.data.tags["djsb.trial"]: run for run in client.search_runs([found_experiment.experiment_id])}
    found: Values = Counter(
        (key, name, m.step, single(m.value)) for key, run in runs.items() if "pool" in run.data.params
        for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)
    )  # fmt: skip
    return found, runs


def uri_of(tiny: Tiny, store: str) -> str:
    home = tiny.study / "track"
    return (home / "mlruns").as_uri() if store == "files" else f"sqlite:///{home / 'mlflow.db'}"


def test_tensorboard_reads_back_what_the_database_says_once(stopped: Tiny) -> None:
    first = export(target(stopped, "tensorboard"))
    found, text = tensorboard(stopped.study / "track/tensorboard")
    assert kept(found) == in_database(stopped) and first.values == sum(found.values())
    with (view := view_study(stopped.study)).store:
        assert text.startswith(answer(view).text)
    assert export(target(stopped, "tensorboard")) == Exported()
    for file in (stopped.study / ".djsb/track").glob("*.json*"):
        file.unlink()  # it is read of the tracker again
    assert export(target(stopped, "tensorboard")).values == 0
    assert tensorboard(stopped.study / "track/tensorboard")[0] == found


def killing(at: int) -> Callable[[Target], Tracker]:
    """TensorBoard, killed as it writes its so-manieth event."""
    from engine.track.trackers import tensorboard as module

    written = 0

    class Writer(module.EventFileWriter):  # type: ignore[misc]
        def add_event(self, event: Any) -> None:
            nonlocal written
            written += 1
            if written == at:
                self.flush()
                raise Killed
            super().add_event(event)

    def opening(to: Target) -> Tracker:
        made = module.Tensorboard(to)
        made.writer = Writer
        return made

    return opening


@pytest.mark.parametrize("at", [1, 2, 7])
def test_a_killed_export_goes_on_and_writes_nothing_twice(stopped: Tiny, at: int) -> None:
    with pytest.raises(Killed):
        export(target(stopped, "tensorboard"), killing(at))
    export(target(stopped, "tensorboard"))
    assert kept(tensorboard(stopped.study / "track/tensorboard")[0]) == in_database(stopped)


@pytest.mark.parametrize("store", ["files", pytest.param("sqlite", marks=pytest.mark.long)])  # its tables take 3 s
def test_mlflow_reads_back_what_the_database_says(stopped: Tiny, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between its writes and resumed, it has all once; the study's own run has answer and leaderboard."""
    from engine.track.trackers import mlflow as module

    to = target(stopped, "mlflow", store=store)
    log_batch, calls = module.MlflowClient.log_batch, 0

    def killed(*args: Any, **fields: Any) -> None:
        nonlocal calls
        calls += 1
        log_batch(*args, **fields)
        if calls in (1, 4):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module.MlflowClient, "log_batch", killed)
        for _ in range(2):
            with pytest.raises(Killed):
                export(to)
    export(to)
    assert export(to) == Exported()
    found, runs = mlflow(uri_of(stopped, store))
    assert kept(found) == in_database(stopped)
    with (view := view_study(stopped.study)).store:
        root, told, entries = view.root, answer(view), leaderboard(view)
        trial = next(t for t in trials.begun(view.store) if t.state == "COMPLETE")
    run, study = runs[trial.id], runs[root]
    assert run.info.status == study.info.status == "FINISHED" and run.data.params["pool_id"] == trial.pool
    assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert run.data.metrics["cost/device_seconds"] == pytest.approx(trial.seconds)
    assert study.data.tags["mlflow.note.content"].startswith(told.text)
    table = Path(module.urlsplit(study.info.artifact_uri).path, "leaderboard.csv").read_text().splitlines()
    assert len(table) == 1 + len(entries) and table[0].startswith("pool,label")


def test_a_store_that_writes_elsewhere_is_refused(stopped: Tiny, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    to = target(stopped, "mlflow", store="files")
    open_tracker(to)  # which makes the store
    MlflowClient(uri_of(stopped, "files")).create_experiment("other", artifact_location=(tmp_path / "out").as_uri())
    with pytest.raises(StoreError, match="outside of the study"):
        export(Target("mlflow", stopped.study, "other", None, {"store": "files"}))
    assert not (tmp_path / "out").exists()


def records(file: Path) -> Iterator[Any]:
    """The records of a run's file, a log of LevelDB: blocks of 32 KiB, in them pieces with sum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def wandb(folder: Path) -> tuple[Values, dict[str, dict[str, Any]]]:
    """The history of W&B's offline runs, and summary and configuration of each."""
    found: Values = Counter()
    told: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("offline-run-*/run-*.wandb")):
        key = file.stem.removeprefix("run-")
        assert key not in told, "a run stands there twice"
        one: dict[str, Any] = told.setdefault(key, {})
        for record in records(file):
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            found.update((key, n, row["_step"], single(v)) for n, v in row.items() if n.startswith("train/"))
            one |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
            one |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
    return found, told


@pytest.mark.long
def test_wandb_has_offline_runs_that_are_whole(stopped: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        trackers = Trackers([target(stopped, "wandb")])
        trackers.close()
        (child,) = trackers.children
        assert child.faults == []
    assert child.result["trials"] == 0  # the second time
    found, told = wandb(stopped.study / "track/wandb")
    expected = in_database(stopped)
    assert found == Counter({key: n for key, n in expected.items() if key[1].startswith("train/")})
    scores = {(key, n): single(v) for key, one in told.items() for n, v in one.items() if n.startswith("eval/")}
    assert scores == {(key, n): value for key, n, _, value in expected if n.startswith("eval/")}
    with (view := view_study(stopped.study)).store:
        assert told[view.root]["answer"].startswith(answer(view).text)
    assert not [p for p in (stopped.study / "track").rglob("*") if p.is_symlink()]


def test_trackio_reads_back_what_the_database_says_once(stopped: Tiny) -> None:
    for _ in range(2):
        trackers = Trackers([target(stopped, "trackio")])
        trackers.close()
        assert trackers.children[0].faults == []
        for file in (stopped.study / ".djsb/track").glob("*.json*"):
            file.unlink()
    (file,) = (stopped.study / "track/trackio").glob("*.db")
    with closing(sqlite3.connect(file)) as db:
        rows = db.execute("SELECT run_id, step, metrics FROM metrics").fetchall()
    with (view := view_study(stopped.study)).store:
        root, text = view.root, answer(view).text
    found: Values = Counter(
        (key, name, step, single(value)) for key, step, told in rows if key != root
        for name, value in json.loads(told).items()
    )  # fmt: skip
    assert kept(found) == in_database(stopped)
    assert json.loads(next(told for key, _, told in rows if key == root))["answer"]["_value"].startswith(text)


def test_a_running_trial_is_exported_as_far_as_it_is(stopped: Tiny) -> None:
    """Its curve comes while it runs, and its end once."""

    class Kept:
        live, look = True, ""

        def __init__(self) -> None:
            self.runs: list[TrialRun] = []

        def write(self, run: TrialRun) -> int:
            self.runs.append(run)
            return len(run.whole)

        def summarise(self, study: Any) -> None: ...
        def close(self) -> None: ...

    with closing(sqlite3.connect(stopped.database)) as db, db:
        (one,) = db.execute("SELECT id FROM trials WHERE state = 'COMPLETE' LIMIT 1").fetchone()
        db.execute("UPDATE trials SET state = 'RUNNING', finished = NULL WHERE id = ?", (one,))
    tracker = Kept()
    exporter = Exporter(target(stopped, "tensorboard"), opening=lambda _: tracker)
    exporter.once()
    exporter.once()
    states = Counter(run.state for run in tracker.runs)
    assert states["running"] == 2 and all(n == 2 for s, n in states.items() if s == "running")
    assert all(not run.scores for run in tracker.runs if run.state == "running")
    with closing(sqlite3.connect(stopped.database)) as db, db:
        db.execute("UPDATE trials SET state = 'COMPLETE', finished = started WHERE id = ?", (one,))
    exporter.once()
    exporter.once()
    exporter.close()
    assert [run.state for run in tracker.runs if run.id == one] == ["running", "running", "finished"]


os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
