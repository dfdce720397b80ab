"""Caption prompts (Appendix E.12): each asked of every cycle's checkpoint, without training."""

from __future__ import annotations

from engine.evidence.effects import paired_changes
from engine.evidence.lineage import RESULT as CYCLE
from engine.journal.store import Row
from engine.records.experiment import Prompt
from engine.records.proposal import Proposal, stored_proposal
from engine.study.opened import OpenStudy
from engine.study.variants import chain_of

STAGE = "prompts"
RESULT = "prompts"  # trial → prompt → metric → value


def prompts_of(proposal: Proposal) -> tuple[str, ...]:
    """The prompts that a proposal asks for; none unless it is of that kind."""
    wanted = proposal.suggestion and proposal.suggestion.experiment
    return wanted.prompts if isinstance(wanted, Prompt) else ()


def asked(view: OpenStudy) -> list[str]:
    """The prompts of all approved proposals of the study's cycles, each once, oldest first."""
    rows = view.store.query(
        "SELECT * FROM proposals WHERE kind = 'prompt' AND status = 'approved' AND (context = ? OR context IN "
        "(SELECT context FROM cycles WHERE root = ?)) ORDER BY at, id",
        (view.root, view.root),
    )
    return list(dict.fromkeys(p for row in rows for p in prompts_of(stored_proposal(row))))


def checkpoints(view: OpenStudy) -> list[Row]:
    """Each cycle's checkpoint that is asked: {cycle, context, trial, path}; cycles of which none is kept are left out.

    The best of the cycle's confirmed recipe or, where that is not kept, the best that is.
    """
    found = []
    metric = view.main_metrics[0] if view.metrics else None
    order = "DESC" if metric is None or metric.higher_is_better else "ASC"
    for link in chain_of(view):
        best = (view.store.result(link["context"], CYCLE) or {}).get("checkpoint")
        row = view.store.one(
            "SELECT c.trial, c.path FROM checkpoints c JOIN trials t ON t.id = c.trial JOIN pools p ON p.id = t.pool "
            "LEFT JOIN metrics m ON m.trial = t.id AND m.name = ? WHERE c.kept = 1 AND t.context = ? "
            f"ORDER BY c.trial = ? DESC, p.kind = 'control', m.value {order}, c.trial LIMIT 1",
            (metric.name if metric else "", link["context"], best),
        )
        if row is not None:
            found.append({"cycle": link["cycle"], "context": link["context"], **row})
    return found


def table(view: OpenStudy) -> Row | None:
    """Table 16: a row a prompt, the study's own first, then as they did in the first cycle; a column a checkpoint.

    change: of the prompt's scores against the control of the checkpoint's seed, asked with the study's own prompt, in
    percent; None where there is no such control. One checkpoint is asked, so there is no interval. None: nothing to
    show.
    """
    own, store = view.study.vlm.prompt, view.store
    columns = [
        {**at, "scores": found} for at in checkpoints(view)
        if (found := (store.result(at["context"], RESULT) or {}).get(at["trial"]))
    ]  # fmt: skip
    if not columns:
        return None
    prompts = dict.fromkeys([own, *asked(view)])
    rows: list[Row] = []
    for prompt in prompts:
        cells = [_cell(view, at, prompt) for at in columns]
        rows.append({"prompt": prompt, "own": prompt == own, "cells": cells})
    rows[1:] = sorted(rows[1:], key=lambda r: -(r["cells"][0]["change"] or 0.0))
    return {
        "columns": [{k: at[k] for k in ("cycle", "context", "trial")} for at in columns], "rows": rows,
        "metrics": [m.name for m in view.main_metrics],
    }  # fmt: skip


def _cell(view: OpenStudy, at: Row, prompt: str) -> Row:
    """A prompt's scores on one checkpoint, and their change."""
    scores = at["scores"].get(prompt)
    control = {
        r["name"]: r["value"]
        for r in view.store.query(
            "SELECT m.name, m.value FROM trials t JOIN trials c ON c.context = t.context AND c.seed = t.seed "
            "AND c.samples = t.samples AND c.horizon = t.horizon JOIN pools p ON p.id = c.pool AND p.kind = 'control' "
            "JOIN metrics m ON m.trial = c.id WHERE t.id = ? AND c.state = 'COMPLETE'",
            (at["trial"],),
        )
    }
    if not scores or not control:
        return {"scores": scores, "change": None}
    changes, _, _ = paired_changes(
        {0: scores}, {0: control}, view.main_metrics, view.study.evaluation.aggregate
    )  # fmt: skip
    return {"scores": scores, "change": changes.get(0)}
