"""MLflow: a run a trial, nested below the study's own, whose description is the answer with the leaderboard."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from engine.base.confine import inside
from engine.base.errors import StoreError
from engine.track.contract import Target
from engine.track.records import StudyRun, TrialRun

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else a store of files is refused
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # what fails is tried again a little later
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType

T = TypeVar("T")
TRIAL, PARENT, NOTE = "djsb.trial", "mlflow.parentRunId", "mlflow.note.content"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
CHANGING = re.compile(r"device|procedure/.*")  # another attempt may have another; a parameter never changes
LONGEST = {"param": 6000, "tag": 7900, "key": 250}
BATCH = {"metrics": 900, "others": 90}
_OTHER = re.compile(r"[^\w\-. :/]")


class Mlflow:
    """An experiment of MLflow. What a run has already is read of it when it is first written."""

    live = True

    def __init__(self, target: Target) -> None:
        uri, self._home = target.uri, None
        if uri is None:
            self._home = inside(target.folder, target.own.name)
            self._home.mkdir(exist_ok=True)
            files = target.options.get("store") == "files"
            uri = (self._home / "mlruns").as_uri() if files else f"sqlite:///{self._home / 'mlflow.db'}"
        self.look = f"mlflow ui --backend-store-uri {uri}" if self._home else f"the server at {_shown(uri)}"
        self._client = MlflowClient(uri)
        self._experiment = self._find(target.project)
        self._runs = {
            key: run.info.run_id for run in _every(self._client, self._experiment)
            if (key := run.data.tags.get(TRIAL) or _named_like(run.info.run_name))
        }  # fmt: skip
        self._has: dict[str, set[tuple[str, int]]] = {}

    def _find(self, name: str) -> str:
        """The experiment's id; it is made where it is missing."""
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if self._home:
                self._refuse_elsewhere(found.artifact_location)
            if found.lifecycle_stage != "active":
                raise StoreError(
                    f"MLflow's experiment {name!r} is deleted; restore it, or name another: track.mlflow.experiment"
                )
            return str(found.experiment_id)
        place = (self._home / "mlflow-artifacts").as_uri() if self._home else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _refuse_elsewhere(self, place: str) -> None:
        """A store that came with the study may send artifacts anywhere."""
        parts = urlsplit(place)
        assert self._home is not None
        if parts.scheme not in ("", "file") or not Path(parts.path).resolve().is_relative_to(self._home.resolve()):
            raise StoreError(
                f"the store in {self._home} keeps artifacts at {place[:200]}, outside of the study; it was moved or "
                f"comes from elsewhere: move {self._home} away, and djsb track makes a new one"
            )

    def write(self, run: TrialRun) -> int:
        """Log what its run lacks, then how it ended."""
        tags = {
            TRIAL: run.id, PARENT: self._parent(run.study), "djsb.stage": run.group, "djsb.note": run.note,
            **{name: value for name, value in run.params.items() if CHANGING.fullmatch(name)},
        }  # fmt: skip
        params = {name: value for name, value in run.params.items() if name not in tags}
        key, has = self._begin(run.id, run.name, run.began)
        there = {name for name, step in has if step < 0}
        new = [p for p in run.whole if (_key(p.name), p.step) not in has]
        values = [Metric(_key(p.name), p.value, int(1000 * run.at(p.step)), p.step) for p in new]
        for some in _pieces(values, BATCH["metrics"]):
            self._client.log_batch(key, metrics=some)
        lacking = {name: value for name, value in params.items() if name not in there}
        self._tell(key, lacking, tags)
        has |= {(_key(p.name), p.step) for p in new} | {(name, -1) for name in params}
        ended = None if run.ended is None else int(1000 * run.ended)
        self._client.update_run(key, STATUS[run.state]) if ended is None else self._client.set_terminated(
            key, STATUS[run.state], ended
        )
        if ended is not None:
            del self._has[run.id]
        return len(new)

    def _parent(self, study: str) -> str:
        """The run of a study; where none is yet, it is made."""
        return self._runs.get(study) or self._begin(study, "study", 0.0)[0]

    def _begin(self, key: str, name: str, began: float) -> tuple[str, set[tuple[str, int]]]:
        """A run's id and what it has: (metric, step), and (parameter, -1)."""
        if key not in self._runs:
            named = f"{name} ({key})"  # a store of files writes the name at once, tags after it
            made = self._client.create_run(
                self._experiment, start_time=int(1000 * began) or None, tags={TRIAL: key}, run_name=named
            )
            self._runs[key], self._has[key] = made.info.run_id, set()
        if key not in self._has:
            data = self._client.get_run(self._runs[key]).data
            history = {(n, m.step) for n in data.metrics for m in self._client.get_metric_history(self._runs[key], n)}
            self._has[key] = history | {(n, -1) for n in data.params}
        return self._runs[key], self._has[key]

    def _tell(self, key: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        made = [Param(_key(name), str(value)[: LONGEST["param"]]) for name, value in params.items()]
        for some in _pieces(made, BATCH["others"]):
            self._client.log_batch(key, params=some)
        said = [RunTag(_key(name), str(value)[: LONGEST["tag"]]) for name, value in tags.items()]
        for part in _pieces(said, BATCH["others"]):
            self._client.log_batch(key, tags=part)

    def summarise(self, study: StudyRun) -> None:
        """Tags, the numbers at this step, the leaderboard as CSV; the description is the answer."""
        key, has = self._begin(study.id, study.name, study.began)
        if self._home:
            self._refuse_elsewhere(self._client.get_run(key).info.artifact_uri)
        at = int(1000 * study.began)
        values = [
            Metric(_key(name), value, at, study.step) for name, value in study.numbers.items()
            if (_key(name), study.step) not in has and math.isfinite(value)
        ]  # fmt: skip
        self._client.log_batch(key, metrics=values)
        has |= {(_key(name), study.step) for name in study.numbers}
        self._tell(key, {}, {**study.params, "mlflow.runName": study.name, NOTE: study.text})
        self._client.log_text(key, _csv(study.table), "leaderboard.csv")
        self._client.log_text(key, study.text + "\n", "answer.md")
        if study.ended:
            self._client.set_terminated(key, "FINISHED")
        else:
            self._client.update_run(key, "RUNNING")

    def close(self) -> None:
        """Every value is stored when it is given."""


def runs_of(uri: str, experiment: str) -> list[Any] | tuple[str, ...]:
    """All runs of an experiment, by its name or id; where there is none, the names of those that there are."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        there = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
        found = next((one for one in there if one.experiment_id == experiment), None)
        if found is None:
            return tuple(one.name for one in there)
    return list(_every(client, found.experiment_id))


def _every(client: MlflowClient, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _named_like(name: str | None) -> str | None:
    """The id in the name of a run whose making was cut off before its tags."""
    found = re.search(r"\(([0-9a-f]{6,32})\)$", name or "")
    return found[1] if found else None


def _key(name: str) -> str:
    return _OTHER.sub("_", name)[: LONGEST["key"]]


def _pieces(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for at in range(0, len(items), size):
        yield list(items[at : at + size])


def _csv(table: Iterable[Mapping[str, Any]]) -> str:
    rows, text = list(table), io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _shown(uri: str) -> str:
    """An address without what may be a key in it."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname or ''}" if parts.hostname else parts.scheme
