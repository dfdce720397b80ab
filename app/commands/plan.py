"""`djsb plan`: trials and device time of every stage."""

from __future__ import annotations

from pathlib import Path

from app.text.printable import say, say_table
from engine.base.amounts import format_seconds
from engine.journal.store import Row
from engine.study.opened import Notice, held, open_study


def plan(folder: Path, workers: int | None, notice: Notice) -> Row:
    """Trials and device time of every stage."""
    from engine.loop.plan import make_plan

    opened = open_study(folder, workers, notice)
    with opened.store, held(opened):
        return make_plan(opened, workers)


def show_plan(found: Row) -> None:
    """As people read it."""
    rows = [
        [s["stage"], str(s["trials"]), s["what"], "–" if s["seconds"] is None else format_seconds(s["seconds"])]
        for s in found["stages"]
    ]
    say_table(rows, ["stage", "trials", "what", "device time"])
    if found["seconds"] is None:
        say(f"\n{found.get('note', 'no task, so no device time: statistics and pools only')}")
        return
    say(
        f"\nin all at most {format_seconds(found['seconds'])} of device time, about "
        f"{format_seconds(found['wall_seconds'])} on {found['devices']} device(s); budget {found['budget']}"
        + ("" if found["fits"] else ": it will end early, with whole rounds of seeds")
    )
    say(
        f"one training on the full data takes T = {format_seconds(found['t_full'])}; m = {found['m']} trials of "
        f"r = {found['r']:.3g}: (1 + m·r)·T = {format_seconds(found['with_sandbox'])}, against M·T: "
        f"it pays from M = {found['break_even']} full trainings on (Section 3.2.4)"
    )
