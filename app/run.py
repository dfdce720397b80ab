"""`djsb auto`: the loop with progress on standard error, and Ctrl-C."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

from agent.proposer import ModelProposer
from app.progress import Display
from engine.budget import format_seconds, parse_budget
from engine.loop import Ended, run_loop
from engine.open_study import OpenStudy, open_study
from engine.scheduler import Scheduler


def run(folder: Path, budget: str | None, until: str, approve: str | None, workers: int | None) -> Ended:
    """Run the loop on a study, then write its recipe and report.

    The first Ctrl-C lets the running trials finish, the second ends them; SIGTERM ends them at once.
    """
    with Display() as display:
        opened = open_study(folder, workers, display.notice)
        with opened.store:
            adviser = _adviser(opened, budget, display)
            ended = run_loop(
                opened, budget=budget, until=until, approve=approve, workers=workers,
                started=lambda s: _attach(s, display, adviser), adviser=adviser,
            )  # fmt: skip
    from app.export import write_recipe
    from app.report import write_report

    if ended.how != "stopped":
        write_recipe(folder)
        write_report(folder, None)
    return ended


def _adviser(opened: OpenStudy, budget: str | None, display: Display) -> ModelProposer | None:
    """The language model, where the study names one; without a key or its packages it says so once and does without."""
    settings = opened.study.agent
    if settings.model is None:
        return None
    adviser = ModelProposer(settings, parse_budget(budget or opened.study.budget))
    if problem := adviser.missing():
        display.line(f"{problem}; the study goes on without it")
        return None
    return adviser


def _attach(scheduler: Scheduler, display: Display, adviser: ModelProposer | None) -> None:
    """Progress after every event, and the handlers of the signals."""
    if adviser is not None:
        adviser.stop = lambda: scheduler.stopping

    def watch(s: Scheduler) -> None:
        ledger = s.ledger()
        detail = f"{format_seconds(ledger.spent)} of {format_seconds(s.limit)} spent"
        cycle = f", cycle {s.opened.cycle}" if s.opened.cycle > 1 else ""
        display.notice(f"trials of {s.stage}{cycle}", s.finished, s.finished + s.unfinished, detail)

    def stop(number: int, _frame: FrameType | None) -> None:
        if scheduler.stopping or number == signal.SIGTERM:
            scheduler.aborting = True
        else:
            display.line("finishing the running trials; Ctrl-C again ends them at once")
        scheduler.stopping = True

    scheduler.watch = watch
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
