"""`djsb auto`: the loop with progress on standard error, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from agent.proposer import ModelProposer
from app.commands.rank import show_rank
from app.text.answer import show_answer
from app.text.lineage import show_lineage
from app.text.printable import say
from app.text.progress import Display
from engine.base.amounts import format_seconds, parse_budget
from engine.base.errors import StudyError
from engine.journal.store import Row
from engine.loop.fitting import TooLittle
from engine.loop.run import Ended, run_loop
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy, open_study
from engine.study.view import view_study


def run(
    folder: Path, budget: str | None, until: str, approve: str | None, workers: int | None, anyway: bool = False
) -> Ended:
    """Run the loop on a study, then write its recipe and report. anyway: even if nothing can be confirmed.

    On a terminal a person is asked where the budget cannot end in a confirmed answer.

    The first Ctrl-C lets the running trials finish, the second ends them; SIGTERM and SIGHUP end them at once.
    """
    try:
        return _run(folder, budget, until, approve, workers, anyway)
    except TooLittle as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        say(str(error), err=True)
        say("search anyway? [y/N] ", err=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise
        return _run(folder, budget, until, approve, workers, True)


def _run(folder: Path, budget: str | None, until: str, approve: str | None, workers: int | None, anyway: bool) -> Ended:
    with Display() as display:
        opened = open_study(folder, workers, display.notice)
        with opened.store:
            opened.store.patience.tell = display.line
            adviser = _adviser(opened, budget)
            ended = run_loop(
                opened, budget=budget, until=until, approve=approve, workers=workers,
                started=lambda s: _attach(s, display, adviser), adviser=adviser, anyway=anyway, tell=display.line,
            )  # fmt: skip
    from app.report.page import write_report
    from engine.evidence.recipe_file import write_recipe

    if ended.how != "stopped":
        write_recipe(folder)
        write_report(folder, None)
    return ended


def _adviser(opened: OpenStudy, budget: str | None) -> ModelProposer | None:
    """The language model, where the study names one. Raises: StudyError when it cannot be asked."""
    settings = opened.study.agent
    if settings.model is None:
        return None
    adviser = ModelProposer(settings, parse_budget(budget or opened.study.budget))
    if problem := adviser.missing():
        raise StudyError(f"{problem}; or take agent.model out of study.yaml, to go on without it")
    return adviser


def _attach(scheduler: Scheduler, display: Display, adviser: ModelProposer | None) -> None:
    """Progress after every event, and the handlers of the signals."""
    if adviser is not None:
        adviser.stop = lambda: scheduler.stopping

    def watch(s: Scheduler) -> None:
        balance = s.balance()
        detail = f"{format_seconds(balance.spent)} of {format_seconds(s.limit)} spent"
        cycle = f", cycle {s.opened.cycle}" if s.opened.cycle > 1 else ""
        display.notice(f"trials of {s.stage}{cycle}", s.finished, s.finished + s.unfinished, detail)

    def stop(number: int, _frame: FrameType | None) -> None:
        if scheduler.stopping or number != signal.SIGINT:
            scheduler.aborting = True
        else:
            display.line("finishing the running trials; Ctrl-C again ends them at once")
        scheduler.stopping = True

    scheduler.watch = watch
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has SIGHUP
            signal.signal(number, stop)


def ending(folder: Path, ended: Any) -> Row:
    """What a run came to."""
    from engine.evidence.answer import answer
    from engine.evidence.lineage import lineage
    from engine.evidence.ranking import leaderboard
    from engine.study.setting import shown

    opened = view_study(folder)
    return {
        "ended": ended.how, "stage": ended.stage, "note": ended.note, "awaiting": ended.awaiting,
        "leaderboard": [e.to_json() for e in leaderboard(shown(opened)[0])],
        "lineage": [c.to_json() for c in lineage(opened)],
        **answer(opened).to_json(), "folder": str(folder.resolve()),
    }  # fmt: skip


def show_ending(found: Row) -> None:
    """As people read it."""
    show_answer(found["answer"])
    recipe = f"{found['folder']}/recipe.yaml"
    if found["recipe"]:
        say(f"recipe: written to {recipe}; use it with: djsb apply {recipe} --data F --out G")
    show_rank(found["leaderboard"])
    if len(found["lineage"]) > 1:
        show_lineage(found["lineage"])
        say("")
    if found["note"] and found["ended"] != "failed":
        say(f"ended at stage {found['stage']}: {found['note']}")
    if found["awaiting"]:
        say(f"{found['awaiting']} proposal(s) await a decision: djsb review --dir {found['folder']}")
    say(f"report: {found['folder']}/report/report.html")
