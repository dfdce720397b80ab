"""Training and judging by djsb's own tasks, for trainers whose program is not there: `backend: djsb`.

Pools of one file share a study of its own below the pipeline's folder, and with it all caches of media and tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engine.base.durable import replaced, write_text
from engine.base.errors import StudyError
from engine.base.ids import content_id
from engine.base.paths import STUDY_FILE
from engine.pipeline.contract import ComponentError, Context
from engine.pools.files import Numbers
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.trial import TrainingTask

NOTE = "djsb.json"  # in a checkpoint's folder: the study that it was trained in


@dataclass(frozen=True)
class Trained:
    """A training. rows: places in the study's data; output: folder of the checkpoint."""

    rows: Numbers
    output: Path
    name: str


def study_folder(content: Mapping[str, Any], context: Context) -> Path:
    """The folder of a study of this content, made if need be."""
    folder = context.work / "own" / content_id(content)
    if not (folder / STUDY_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / STUDY_FILE) as part:
            part.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return folder


@contextmanager
def opened(folder: Path, context: Context) -> Iterator[tuple[OpenStudy, TrainingTask]]:
    """The study with its task, whose threads are those of this machine."""
    from engine.runner.worker import settle_threads  # torch takes seconds

    os.environ.setdefault("DJSB_THREADS", str(context.workers or os.cpu_count() or 1))
    settle_threads()
    study = open_study(folder, context.workers)
    with study.store:
        task: Any = study.task
        yield study, task


def train(folder: Path, work: Iterator[Trained] | list[Trained], context: Context, epochs: float) -> list[str]:
    """Train on each of these; the folders of the checkpoints. What is there from before is made anew."""
    made = []
    with opened(folder, context) as (study, task):
        from engine.tasks.shared.procedure import begin

        prepared, part = study.prepared, task.training
        for one in work:
            good = one.rows[study.scanned.good[one.rows]]
            if len(good) < len(one.rows):
                context.say(f"{one.name}: {len(one.rows) - len(good)} of {len(one.rows)} rows cannot be read")
            if len(good) < 2:
                raise ComponentError(f"{context.job}: {one.name} has {len(good)} rows that can be read; give more")
            rows = context.scratch / "rows.npy"
            np.save(rows, good)
            job = Job(one.name, str(rows), max(2, round(len(good) * epochs)), context.seed, None, str(one.output))
            report = Report(_points(context, one.name))
            begin(study.study)
            model = part.build(study.study, prepared, job.seed, None)
            part.train(model, study.study, prepared, good, job, report)
            report.end()
            one.output.parent.mkdir(parents=True, exist_ok=True)
            part.save(model, study.study, prepared, one.output)
            write_text(one.output / NOTE, json.dumps({"study": str(folder)}, allow_nan=False))
            context.say(f"{one.name}: trained on {job.samples} samples, {one.output}")
            made.append(str(one.output))
    return made


def _points(context: Context, name: str) -> Callable[[str, dict[str, Any]], None]:
    def emit(_kind: str, content: dict[str, Any]) -> None:
        for key, value in content["values"].items():
            context.measure(f"{name}/{key}", float(value), int(content["step"]))

    return emit


def study_of(checkpoint: Path, job: str) -> Path:
    """The study that a checkpoint was trained in. Raises: ComponentError where djsb has not trained it."""
    try:
        folder = Path(json.loads((checkpoint / NOTE).read_text(encoding="utf-8"))["study"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ComponentError(
            f"{job}: {checkpoint} was not trained by djsb; train it with backend: djsb, or judge it without"
        ) from error
    if not (folder / STUDY_FILE).exists():
        raise StudyError(f"{job}: {folder}, in which {checkpoint} was trained, is not there; train it again")
    return folder
