"""`djsb status`: where the study stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from app.text.answer import show_answer
from app.text.lineage import show_lineage
from app.text.printable import say, say_table
from engine.base.amounts import format_seconds
from engine.base.ids import some
from engine.base.paths import STATE_FOLDER
from engine.journal import costs, events, proposals, trials
from engine.journal.store import Row
from engine.study.lock import engine_pid
from engine.study.view import view_study


def status(folder: Path) -> Row:
    """Where the study stands; reads the database only."""
    from engine.evidence.answer import answer
    from engine.evidence.lineage import lineage
    from engine.evidence.sentences import insights
    from engine.evidence.transfer import STAGE as TRANSFER
    from engine.loop.fitting import lines as design_lines
    from engine.proposals.kinds.transfer import approved

    opened = view_study(folder)
    store, setup = opened.store, opened.setup
    counts = trials.counts(store, setup)
    stages = [{"stage": stage, "trials": counts.get(stage) or {}} for stage in opened.study.stages]
    elsewhere = trials.of_proposals(store, [p.id for p in approved(opened)])  # in contexts of their own
    if elsewhere:
        stages.append({"stage": TRANSFER, "trials": dict(Counter(t.state for t in elsewhere))})
    running = trials.running(store, setup, [t.id for t in elsewhere])
    waiting = proposals.of_setup(store, setup, proposals.OPEN)
    last = next(iter(events.last(store, 1)), None)
    return {
        "name": opened.study.name, "engine": engine_pid(folder.resolve() / STATE_FOLDER), "stages": stages,
        "running": [some(t, "id", "device", "seed", "label", "started", "estimate", "step") for t in running],
        "spent": costs.total(store), "limit": opened.limit,
        "awaiting": [some(p, "id", "kind", "stage") for p in waiting],
        **answer(opened).to_json(),
        "insights": {stage: [asdict(s) for s in lines] for stage, lines in insights(opened).items()},
        "cycle": opened.cycle, "cycles": opened.study.cycles.max, "lineage": [c.to_json() for c in lineage(opened)],
        "design": design_lines(opened),
        "last": last and some(last, "at", "kind", "text"),
    }  # fmt: skip


def show_status(found: Row) -> None:
    """As people read it."""
    show_answer(found["answer"])
    engine = f"engine runs (process {found['engine']})" if found["engine"] else "no engine runs"
    cycle = f"; cycle {found['cycle']}" if found["cycle"] > 1 or found["cycles"] > 1 else ""
    say(f"{found['name']}: {engine}{cycle}; {format_seconds(found['spent'])} of {format_seconds(found['limit'])} spent")
    say_table(
        [
            [s["stage"], *(str(s["trials"].get(state, 0)) for state in ("COMPLETE", "RUNNING", "WAITING", "FAIL"))]
            for s in found["stages"]
        ],
        ["stage", "complete", "running", "waiting", "failed"],
    )
    for r in found["running"]:
        say(f"running  {r['device']}  {r['label']}  seed {r['seed']}  step {r['step'] or 0}")
    for line in found["design"]:
        say(f"design   {line}")
    if found["awaiting"]:
        say(f"{len(found['awaiting'])} proposal(s) await a decision: djsb review")
    for stage, told in found["insights"].items():
        for sentence in told:
            say(f"{stage:8} {sentence['text']} [{', '.join(sentence['cites'][:3])}]")
    if len(found["lineage"]) > 1:
        show_lineage(found["lineage"])
    if found["last"]:
        say(f"last     {found['last']['at']}  {found['last']['text']}")
