"""`djsb plan`: what a study takes: disk, memory, time of statistics, trials and device time of every stage."""

from __future__ import annotations

from pathlib import Path

from app.text.printable import say, say_table
from engine.base.amounts import format_bytes, format_seconds
from engine.journal.store import Row
from engine.study.opened import held, open_study
from engine.study.rows import Notice


def plan(folder: Path, workers: int | None, notice: Notice, budget: str | None = None) -> Row:
    """Trials and device time of every stage. budget: in place of the study's."""
    from engine.loop.plan import make_plan

    opened = open_study(folder, workers, notice)
    with opened.store, held(opened):
        return make_plan(opened, workers, budget)


def show_plan(found: Row) -> None:
    """As people read it."""
    for line in found["design"]:
        say(line)
    if found["design"]:
        say("")
    rows = [
        [s["stage"], str(s["trials"]), s["what"], "–" if s["seconds"] is None else format_seconds(s["seconds"])]
        for s in found["stages"]
    ]
    say_table(rows, ["stage", "trials", "what", "device time"])
    _show_forecast(found["forecast"])
    if found["pool_bound"]:
        _show_bound(found["pool_bound"])
    for text in found["target"]:
        say(f"target: {text}")
    if found["forecast"].get("training"):
        _show_training(found["forecast"]["training"])
    if found["seconds"] is None:
        say(f"\n{found.get('note', 'no task, so no device time: statistics and pools only')}")
        return
    each = f", {found['devices_per_trial']} a trial" if found["devices_per_trial"] > 1 else ""
    say(
        f"\nin all at most {format_seconds(found['seconds'])} of device time, about "
        f"{format_seconds(found['wall_seconds'])} on {found['devices']} device(s){each}; budget {found['budget']}"
        + ("" if found["fits"] else ": it will end early, with whole rounds of seeds")
    )
    say(
        f"one training on the full data takes T = {format_seconds(found['t_full'])}; m = {found['m']} trials of "
        f"r = {found['r']:.3g}: (1 + m·r)·T = {format_seconds(found['with_sandbox'])}, against M·T: "
        f"it pays from M = {found['break_even']} full trainings on (Section 3.2.4)"
    )


def _show_bound(bound: Row) -> None:
    """What the pools' size and the seeds can show."""
    say(
        f"pools: a share or mean (0 … 1) over {bound['rows']:,} rows is within ± {bound['margin']:.3f} of that of all "
        f"rows, but for a chance of {bound['chance']:.0%}; a change over {bound['seeds']} seeds is too high by half of "
        f"the range of changes with a chance of {bound['misled']:.0%} at most (Hoeffding; Section C.1)"
    )


def _show_training(memory: Row) -> None:
    """What a training takes of a device, and whether that fits."""
    parts = ", ".join(
        f"{name} {format_bytes(memory[name])}"
        for name in ("weights", "gradients", "moments", "activations", "gathered") if memory.get(name)
    )  # fmt: skip
    of = f" of {format_bytes(memory['device'])} on the smallest GPU here" if memory["device"] else ""
    rows = f", {memory['micro_batch']} rows at once" if memory["micro_batch"] else ""
    again = ", activations made again" if memory["activation_checkpointing"] else ""
    say(f"memory: a training takes about {format_bytes(memory['total'])}{of} ({parts}{rows}{again})")


def _show_forecast(ahead: Row) -> None:
    """Disk, memory and statistics."""
    say(f"\nrows: {ahead['rows']:,}")
    for thing in ahead["disk"]:
        there = f", {format_bytes(thing['there'])} of it there" if thing["there"] else ""
        say(f"disk: {thing['what']} {format_bytes(thing['size'])}{there}")
    say(f"disk: {format_bytes(ahead['disk_needed'])} to be written, {format_bytes(ahead['disk_free'])} free")
    for note in ahead["notes"]:
        say(note)
    for cost in ahead["statistics"]:
        off = "" if cost["spread"] is None else f" ± {cost['spread']:.0%}"
        say(
            f"statistics: {cost['op']} {format_seconds(cost['seconds'])}{off} on {cost['processes']} process(es): "
            f"{cost['rows']:,} rows at {1 / max(1e-9, cost['each']):,.0f} a second of one, by {cost['sample']} rows"
        )
    left = f"{format_seconds(ahead['statistics_seconds'])} in all" if ahead["statistics"] else "all are there"
    say(f"statistics: {left}")
    say(f"memory: about {format_bytes(ahead['memory_bytes'])}, {format_bytes(ahead['memory_available'])} available")
