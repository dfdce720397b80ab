"""`djsb run`: a configuration of Data-Juicer Sandbox, shown or run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.text.boards import show_boards
from app.text.printable import say, say_table
from engine.base.amounts import format_seconds
from engine.base.paths import DATABASE, STATE_FOLDER
from engine.journal import jobs
from engine.journal.jobs import JobRow
from engine.journal.store import Store
from engine.pipeline import values
from engine.pipeline.board import last_boards
from engine.pipeline.check import Node, output_names
from engine.pipeline.registry import plugin_of
from engine.pipeline.start import Checked, Ended, checked

Row = dict[str, Any]
SHOWN = 100  # characters of an output


def dry_run(file: Path, root: Path) -> Row:
    """The graph: what each job runs, needs, reads, writes and gives, and what is wrong."""
    found = checked(file, root)
    c = found.configuration
    return {
        "file": str(file), "project": c.project, "experiment": c.experiment, "work_dir": str(found.work),
        "iterations": {"max": c.max_iterations, "targets": [t.text for t in c.targets], "mode": c.mode,
                       "updater": dict(c.updater)},
        "hpo": c.hpo, "seeds": c.seeds, "control": c.control, "budget": c.budget,
        "jobs": [_node(number, node, found) for number, node in enumerate(found.nodes, 1)],
        "problems": [str(problem) for problem in found.problems],
    }  # fmt: skip


def _node(number: int, node: Node, found: Checked) -> Row:
    times, given = found.configuration.seeds if node.repeated else 1, plugin_of(node.component)
    return {
        "number": number, "job": node.job.key, "phase": node.job.phase, "hook": node.job.hook,
        "component": node.component.name, "plugin": str(given) if given else None, "after": list(node.after),
        "inputs": {key: f"{s.job.key}.{'.'.join([output_names(s.job, _of(found, s.job.key))[s.place], *s.rest])}"
                   for key, s in node.inputs.items()},
        "reads": list(node.reads), "writes": list(node.writes),
        "gives": output_names(node.job, node.component), "times": times,
    }  # fmt: skip


def _of(found: Checked, key: str) -> Any:
    return next(node.component for node in found.nodes if node.job.key == key)


def show_dry_run(found: Row) -> None:
    """As people read it."""
    say(f"{found['project']} / {found['experiment']}, work_dir {found['work_dir']}")
    for text in _plan(found):
        say(text)
    pipeline = phase = ""
    for job in found["jobs"]:
        if (here := job["job"].partition(".")[0]) != pipeline:
            pipeline, phase = here, ""
            say(f"\n{pipeline}")
        if job["phase"] != phase:
            phase = job["phase"]
            say(f"  {phase}")
        times = f", at {job['times']} seeds" if job["times"] > 1 else ""
        say(f"    {job['number']}. {job['job'].partition('.')[2]}: {job['hook']}, {job['component']}{times}")
        if job["plugin"]:
            say(f"         plug-in: {job['plugin']}")
        for name in ("after", "reads", "writes", "gives"):
            if job[name]:
                say(f"         {name}: {', '.join(job[name])}")
        for key, source in job["inputs"].items():
            say(f"         input: {key} ← {source}")
    if found["problems"]:
        say(f"\n{len(found['problems'])} problem(s)")
        for problem in found["problems"]:
            say(f"  {problem}")


def _plan(found: Row) -> list[str]:
    loops, said = found["iterations"], []
    if loops["max"] != 1 or loops["targets"]:
        most = f"at most {loops['max']}" if loops["max"] else "as many as it takes"
        joint = " and " if loops["mode"] == "all" else " or "
        until = f" until {joint.join(loops['targets'])}" if loops["targets"] else ""
        said.append(f"iterations: {most}{until}")
    said += [f"then: {goal} ← {key}" for key, goal in loops["updater"].items()]
    if found["hpo"]:
        said.append(f"sweep: {found['hpo']}")
    return said


def ending(ended: Ended) -> Row:
    """What a run came to."""
    with Store(ended.work / STATE_FOLDER / DATABASE, readonly=True) as store:
        rows = jobs.jobs_of(store, ended.run)
        last = {row.variant: row.iteration for row in rows}
        shown = [row for row in rows if row.iteration == last[row.variant]]
        trials = jobs.sweep(store, ended.run)
        return {
            "run": ended.run, "how": ended.how, "note": ended.note, "work_dir": str(ended.work),
            "iterations": ended.iterations,
            "jobs": [_job(store, row) for row in shown],
            "pools": [asdict(board) for board in last_boards(jobs.scores(store, ended.run))],
            "sweep": [{"variant": t.variant, "params": json.loads(t.params), "state": t.state, "value": t.objective}
                      for t in trials],
        }  # fmt: skip


def _job(store: Store, row: JobRow) -> Row:
    names = json.loads(row.outputs)
    given = jobs.outputs(store, row.result) if row.result and row.state == "COMPLETE" else []
    return {
        "job": row.key, "variant": row.variant, "iteration": row.iteration, "seed": row.seed, "state": row.state,
        "reused": bool(row.reused), "seconds": row.seconds, "error": row.error,
        "outputs": {name: values.decode(text) for name, text in zip(names, given, strict=False)},
    }  # fmt: skip


def show_ending(found: Row) -> None:
    """As people read it."""
    rows = []
    for job in found["jobs"]:
        outputs = "; ".join(f"{name} = {_short(value)}" for name, value in job["outputs"].items())
        time = "" if job["seconds"] is None else format_seconds(job["seconds"])
        state = f"{job['state']}{' (before)' if job['reused'] else ''}"
        rows.append([job["job"], state, time, outputs or job["error"] or ""])
    say_table(rows, ["job", "state", "time", "outputs"])
    show_boards(found["pools"])
    if found["sweep"]:
        say("")
        best = [[str(t["variant"]), t["state"], "" if t["value"] is None else f"{t['value']:.6g}",
                 ", ".join(f"{key} = {value}" for key, value in t["params"].items())]
                for t in found["sweep"]]  # fmt: skip
        say_table(best, ["variant", "state", "value", "parameters"])
    if found["note"]:
        say(found["note"])
    say(f"{found['iterations']} iteration(s); its database: {found['work_dir']}/.djsb")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
