"""W&B: a run a trial, written when it has ended, and one of the study. Nothing is uploaded unless WANDB_MODE=online."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.base.confine import inside
from engine.base.durable import PART
from engine.track.contract import Target, named
from engine.track.records import StudyRun, TrialRun

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")

import wandb

MARK = "djsb-mark"  # in a run's folder: what it holds
ONLINE = ("online", "shared")


class Wandb:
    """Folders of offline runs in `track/wandb`, as `wandb sync` takes them.

    A run is made in a folder of its own and renamed when it is whole, so it is there once or not at all.
    """

    live = False

    def __init__(self, target: Target) -> None:
        self.folder = inside(target.own, "wandb")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._scratch = inside(self.folder, f"{PART}runs")  # no settings file of a study lies there
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        os.chdir(self._scratch)
        self.project = named(target.project, more=" ")
        self._mode = os.environ.get("WANDB_MODE", "offline")
        online = self._mode in ONLINE
        self.look = f"wandb's project {self.project}" if online else f"wandb sync {self.folder}/offline-run-*"
        self._settings = wandb.Settings(
            mode=self._mode, root_dir=str(self._scratch), silent=True, console="off", disable_git=True,
            save_code=False, x_disable_stats=True, x_disable_meta=True,
        )  # fmt: skip

    def write(self, run: TrialRun) -> int:
        """Write the whole run, unless it is there as it is now."""

        def fill(made: Any) -> None:
            for step, points in groupby(run.points, lambda p: p.step):
                made.log({p.name: p.value for p in points}, step=step)
            made.summary.update({**run.scores, "state": run.state, "note": run.note})

        config = {**run.params, "began": run.began, "ended": run.ended}
        new = self._put(run.id, run.mark, fill, name=run.name, group=run.study, job_type=run.group, config=config)
        return len(run.whole) if new else 0

    def summarise(self, study: StudyRun) -> None:
        """Write the study's run anew: the leaderboard as a table, answer and numbers as its summary."""
        columns = list(study.table[0]) if study.table else ["pool"]

        def fill(made: Any) -> None:
            rows: list[Any] = [[row[c] for c in columns] for row in study.table]
            table = wandb.Table(columns=[*columns], data=rows, allow_mixed_types=True)
            made.log({**study.numbers, "leaderboard": table}, step=study.step)
            made.summary.update({**study.numbers, "answer": study.text})

        self._put(
            study.id, study.mark, fill, name=study.name, group=study.id, job_type="study", config={**study.params},
            notes=study.text,
        )  # fmt: skip

    def _put(self, key: str, mark: str, fill: Callable[[Any], None], **about: Any) -> bool:
        """Make a run and move it to its place; False where it is there with this mark."""
        before = [f for f in self.folder.glob(f"*-{key}") if not f.is_symlink()]
        if any(_mark(folder) == mark for folder in before):
            return False
        made = wandb.init(
            project=self.project, id=key, settings=self._settings, reinit="create_new",
            resume="allow" if self._mode in ONLINE else None, **about,
        )  # fmt: skip
        fill(made)
        made.finish()
        for folder in self._scratch.glob(f"wandb/*-{key}"):
            shutil.rmtree(folder / "logs", ignore_errors=True)  # a link in it leads out of the study
            (folder / MARK).write_text(mark, encoding="utf-8")
            for old in before:
                shutil.rmtree(old)
            folder.rename(inside(self.folder, folder.name))
        return True

    def close(self) -> None:
        """End W&B's own process; what it had in the making goes."""
        wandb.teardown()
        os.chdir(self.folder)
        shutil.rmtree(self._scratch, ignore_errors=True)


def _mark(folder: Path) -> str | None:
    file = folder / MARK
    return file.read_text(encoding="utf-8") if file.is_file() else None
