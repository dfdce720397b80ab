"""What `djsb init` times: a few steps, so that the first study ends within half an hour on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.base.amounts import budget_text, format_seconds, parse_budget
from engine.base.errors import DjsbError
from engine.journal import results
from engine.loop import fitting
from engine.runner.scheduler import scheduler
from engine.search.designer import SAFE, Designer
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import Notice
from engine.study.sample import look_at
from engine.tasks.contract import Outside

WALL = 1500.0  # seconds that a first study may take; statistics and start come on top
MOST_ROWS = 50_000  # of data that is looked at as a whole for it
TRIALS = 60  # whole trainings that a budget should pay for
SHORTEST = 1.0  # passes over a pool, below which fewer rows are better


@dataclass(frozen=True)
class Sized:
    """epochs, budget: as they suit this machine. lines: what there is to say. note: why nothing was timed."""

    epochs: float
    budget: str
    lines: tuple[str, ...] = ()
    note: str = ""


def size(folder: Path, notice: Notice) -> Sized:
    """Time a few steps of a study that was just written."""
    opened = open_study(folder, None, notice)
    with opened.store:
        study = opened.study
        kept = Sized(study.train.epochs, study.budget)
        if study.task is None or isinstance(opened.task, Outside):
            return kept
        if (rows := len(opened.data)) > MOST_ROWS:
            return Sized(kept.epochs, kept.budget, note=f"{rows:,} rows are not scanned for it")
        try:
            return _timed(opened)
        except DjsbError as error:
            return Sized(kept.epochs, kept.budget, note=str(error))


def _timed(opened: OpenStudy) -> Sized:
    """The epochs and the budget. Raises: DjsbError where data or model do not allow a step."""
    seen = look_at(opened)
    with scheduler(seen.study, parse_budget(opened.study.budget), None) as timer:
        timer.calibrate(charge=False)
        devices, accounts = sum(slot.width for slot in timer.slots), timer.accounts
    rows, epochs, limit = opened.probe.common, opened.study.train.epochs, WALL * devices

    def cost(passes: float) -> float:
        return accounts.estimate(int(rows * passes)) or 0.0

    told = [f"timed: a training of {rows:,} rows × {epochs:g} epochs takes {format_seconds(cost(epochs))} of a device"]
    while cost(epochs) * TRIALS > SAFE * limit and epochs / 2 >= SHORTEST:
        epochs /= 2
    if epochs != opened.study.train.epochs:
        told.append(f"train.epochs: {epochs:g}, so that enough of them fit")
    train = opened.study.train.model_copy(update={"epochs": epochs})
    calibration = results.CALIBRATION.get(opened.store, opened.setup)
    sized = OpenStudy(
        opened.folder, opened.study.model_copy(update={"train": train}), opened.store, workers=opened.workers,
        most=opened.most, notice=opened.notice,
    )  # fmt: skip
    results.CALIBRATION.put(sized.store, sized.setup, calibration)
    least = Designer(sized, lambda samples: accounts.estimate(int(samples)) or 0.0).least()[0]
    budget = budget_text(max(limit, 1.1 * least))
    accounts.limit = parse_budget(budget)
    wall = format_seconds(parse_budget(budget) / devices)
    told.append(f"budget: {budget}, about {wall} on {devices} device{'s' * (devices != 1)}")
    accounts.opened = sized
    return Sized(epochs, budget, (*told, *fitting.look(sized, accounts, anew=True)[:1]))
