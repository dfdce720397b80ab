"""Which reader a source of results has: `mlflow:EXPERIMENT`, `wandb:RUNS.jsonl`, or a CSV file."""

from __future__ import annotations

from pathlib import Path

from engine.track.recorded import csv_file, mlflow_runs, wandb_runs
from engine.track.recorded.contract import Choice, Tell, Value


def read(source: str, choice: Choice, folder: Path, tell: Tell) -> list[Value]:
    """The values of a source. folder: of the study whose own MLflow store counts where no other is named."""
    kind, _, rest = source.partition(":")
    if kind == "mlflow" and rest:
        return mlflow_runs.read(rest, choice, folder, tell)
    if kind == "wandb" and rest:
        return wandb_runs.read(Path(rest), choice, tell)
    return csv_file.read(Path(source), choice)
