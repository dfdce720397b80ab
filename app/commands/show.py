"""One pool, trial, proposal, recipe, lineage or scaling law, as `djsb show` has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

from app.text.contents import show_contents
from app.text.evidence import evidence_lines
from app.text.lineage import show_lineage, show_scaling
from app.text.mappers_and_prompts import show_mappers, show_prompts
from app.text.printable import one_line, say, say_fields
from engine.base.errors import DjsbError, StudyError
from engine.base.ids import by_beginning, some
from engine.journal import checkpoints, costs, curves, decisions, metrics, pools, proposals, trials, usage
from engine.journal.pools import StoredPool
from engine.journal.store import Row, Store
from engine.records.proposal import StoredProposal
from engine.records.trial import Trial
from engine.records.usage import MEASURES
from engine.study.view import StudyView, view_study


def show(folder: Path, start: str) -> Row:
    """One pool, trial or proposal by the beginning of its id, or recipe, lineage, scaling, mappers, prompts."""
    from engine.evidence.lineage import lineage
    from engine.evidence.mapped import judged
    from engine.evidence.recipe import standing_recipe
    from engine.evidence.stability import stability
    from engine.evidence.transfer import ScalingLaw
    from engine.proposals.kinds import prompt as prompting
    from engine.proposals.kinds.transfer import scaling
    from engine.study.setting import shown

    opened = view_study(folder)
    store = opened.store
    if start == "scaling":
        held = asdict(stability(opened))
        return {"what": "scaling", **(scaling(opened) or ScalingLaw([], {})).to_json(), "stability": held}
    if start == "mappers":
        return {"what": "mappers", "mappers": [m.to_json() for m in judged(opened)]}
    if start == "prompts":
        table = prompting.table(opened)
        return {"what": "prompts", "prompts": table and table.to_json()}
    if start == "lineage":
        return {"what": "lineage", "lineage": [c.to_json() for c in lineage(opened)]}
    if start == "recipe":
        best = standing_recipe(shown(opened)[0])
        if best is None:
            raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage")
        return {"what": "recipe", **best.to_json()}
    matches: dict[str, Callable[[], Row]] = {
        **{p.id: partial(_pool, opened, p) for p in pools.beginning(store, start)},
        **{t.id: partial(_trial, store, t) for t in trials.beginning(store, start)},
        **{p.id: partial(_proposal, store, p) for p in proposals.beginning(store, start)},
    }
    missing = f"no pool, trial or proposal begins with {start!r}; djsb rank and djsb log name them"
    return matches[by_beginning(matches, start, missing)]()


def _pool(view: StudyView, pool: StoredPool) -> Row:
    from engine.evidence.ranking import leaderboard
    from engine.study.setting import shown

    store = view.store
    cut, own = pools.cut(store, pool.id), trials.of_pool(store, pool.id)
    found, problem = contents_of(view, pool)
    return {
        "what": "pool", **pool.to_json(),
        "trials": [some(t, "id", "seed", "samples", "stage", "state", "seconds") for t in own],
        "cut": cut and some(cut, "kept", "entropy", "verdict", "reason"),
        "evidence": next((e.to_json() for e in leaderboard(shown(view)[0]) if e.pool == pool.id), None),
        "contents": found, "contents_problem": problem,
    }  # fmt: skip


def contents_of(view: StudyView, pool: StoredPool) -> tuple[Row | None, str | None]:
    """(what it keeps and drops, why that cannot be told): the data may be gone, the rest of the study is there."""
    from engine.evidence.contents import contents
    from engine.study.opened import with_data

    try:
        return contents(with_data(view), pool).to_json(), None
    except DjsbError as error:
        return None, str(error)


def _trial(store: Store, trial: Trial) -> Row:
    checkpoint = checkpoints.get(store, trial.id)
    return {
        "what": "trial", **some(trial, *(f.name for f in fields(trial) if f.name not in ("label", "kind"))),
        "metrics": metrics.of_trial(store, trial.id), "curve": curves.of_trial(store, trial.id),
        "costs": [some(c, "id", "device", "seconds", "at") for c in costs.of_trial(store, trial.id)],
        "usage": {
            u.name: {**some(u, "peak", "mean"), "unit": MEASURES.get(u.name)} for u in usage.of_trial(store, trial.id)
        },
        "checkpoint": checkpoint and some(checkpoint, "path", "bytes", "kept"),
    }  # fmt: skip


def _proposal(store: Store, proposal: StoredProposal) -> Row:
    made = decisions.of_proposal(store, proposal.id)
    return {
        "what": "proposal", **asdict(proposal),
        "decisions": [some(d, "verdict", "who", "why", "at") for d in made],
        "trials": [some(t, "id", "state", "seed", "label") for t in trials.of_proposal(store, proposal.id)],
    }  # fmt: skip


def show_one(found: Row) -> None:
    """As people read it."""
    if found["what"] == "lineage":
        show_lineage(found["lineage"])
    elif found["what"] == "scaling":
        show_scaling(found)
    elif found["what"] == "mappers":
        show_mappers(found["mappers"])
    elif found["what"] == "prompts":
        show_prompts(found["prompts"])
    elif found["what"] == "pool":
        say_fields({name: value for name, value in found.items() if name not in ("contents", "evidence")})
        for line in evidence_lines(found["evidence"]) if found["evidence"] else ():
            say(one_line(line))
        if found["contents"]:
            say("")
            show_contents(found["contents"])
    else:
        say_fields(found)
