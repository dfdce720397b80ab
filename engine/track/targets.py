"""Where a study's results go: what study.yaml, the command line and the environment say together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from engine.base.confine import refuse_links
from engine.base.environment import passed
from engine.base.errors import StudyError
from engine.settings.study import Study
from engine.settings.track import Kind
from engine.track.contract import FOLDER, Target

PACKAGES = {
    "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",), "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
}  # fmt: skip
VARIABLES = {"mlflow": "MLFLOW_", "wandb": "WANDB_"}  # beginnings of those that a tracker gets, keys among them
STORE = "MLFLOW_TRACKING_URI"


def lacking(kind: Kind) -> str | None:
    """What a tracker lacks here, with the command that gets it; None where it is there. Nothing is imported."""
    missing = [name for name in PACKAGES[kind] if find_spec(name) is None]
    return f"track: {kind} needs {', '.join(missing)}: pip install 'djsb[{kind}]'" if missing else None


def targets(
    study: Study, folder: Path, kinds: Sequence[Kind] = (), uri: str | None = None, project: str | None = None
) -> list[Target]:
    """The study's trackers. kinds: these instead. uri: of MLflow's store. project: in place of the study's.

    Raises: StudyError where there is none; StoreError where a link leads out of the folder of their stores.
    """
    chosen = kinds or study.track.kinds
    if not chosen:
        raise StudyError(
            "the study names no tracker; name one: djsb track --to mlflow, or track: [mlflow] in study.yaml"
        )
    if uri and "mlflow" not in chosen:
        raise StudyError("--uri is of MLflow's store; add --to mlflow, or leave it out")
    folder = folder.resolve()
    (folder / FOLDER).mkdir(exist_ok=True)
    refuse_links(folder, FOLDER)
    return [_target(study, folder, kind, uri, project) for kind in chosen]


def _target(study: Study, folder: Path, kind: Kind, uri: str | None, project: str | None) -> Target:
    section = getattr(study.track, kind)
    options = section.model_dump(exclude_none=True) if section else {}
    named = options.pop("experiment", None) or options.pop("project", None)
    place = (uri or os.environ.get(STORE) or None) if kind == "mlflow" else None
    return Target(kind, folder, project or named or study.name, place, options)


def environment(kind: Kind) -> dict[str, str]:
    """What the process of a tracker gets of the environment: the usual, and the tracker's own variables."""
    prefix = VARIABLES.get(kind)
    own = [name for name in os.environ if prefix and name.startswith(prefix)]
    return passed(more=own)
