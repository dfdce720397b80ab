"""Runs of an MLflow experiment: parameters and tags are columns, metrics are what the last step came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.base.confine import inside
from engine.base.errors import DataError, MachineError
from engine.track.contract import FOLDER
from engine.track.recorded.contract import Choice, Record, Tell, Value, listed, values_of
from engine.track.targets import STORE, lacking

USED = "FINISHED"


def read(experiment: str, choice: Choice, folder: Path, tell: Tell) -> list[Value]:
    """The values of an experiment, by its name or id, at MLFLOW_TRACKING_URI, or in the store of the study in `folder`.

    Raises: DataError, MachineError.
    """
    if problem := lacking("mlflow"):
        raise MachineError(problem)
    uri = os.environ.get(STORE) or _own(folder)
    from mlflow.exceptions import MlflowException

    from engine.track.trackers.mlflow import runs_of  # start-up time: few commands need it, and mlflow

    try:
        found = runs_of(uri, experiment)
    except MlflowException as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"mlflow:{experiment} cannot be read: {said}; check {STORE}") from error
    if isinstance(found, tuple):
        raise DataError(f"there is no experiment {experiment!r} in MLflow; there are {listed(found)}")
    origin = f"mlflow:{experiment}"
    unfinished = [run.info.run_name for run in found if run.info.status != USED and run.data.metrics]
    if unfinished:
        tell(f"{len(unfinished)} run(s) that have not finished are left out: {listed(unfinished)}")
    records = [_record(run) for run in found if run.info.status == USED]
    if not records:
        raise DataError(f"{origin} has no run that has finished; wait for one, or name another experiment")
    return values_of(records, choice, origin)


def _own(folder: Path) -> str:
    home = folder.resolve() / FOLDER
    if (home / "mlflow.db").is_file():
        return f"sqlite:///{inside(home, 'mlflow.db')}"
    if (home / "mlruns").is_dir():
        return inside(home, "mlruns").as_uri()
    raise DataError(f"mlflow: set {STORE} to its store, as sqlite:////path/mlflow.db; {folder} has none of its own")


def _record(run: Any) -> Record:
    facts = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    facts |= {"run": run.info.run_name or "", **run.data.params}
    numbers = {name: str(value) for name, value in run.data.metrics.items()}
    return Record(f"run {run.info.run_name} ({run.info.run_id})", facts, numbers)
