"""Drafting: a suggestion becomes a proposal with pools, lengths and seeds, or is refused with the reason.

Suggested pools run straight at the last rung of the study, against the control at the same seeds and steps, so that
they stand beside what the race or the grid has kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.base.errors import DjsbError
from engine.base.ids import content_id
from engine.journal import proposals, trials
from engine.proposals.arms import trial_id
from engine.proposals.kinds.contract import Refused
from engine.proposals.kinds.registry import kind_of, runnable
from engine.proposals.queue import stored_id, submit, where
from engine.records.experiment import Suggestion
from engine.records.proposal import ID_WORDS, Arm, Origin, Proposal
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy


def suggest(
    opened: OpenStudy, suggestion: Suggestion, origin: Origin, accounts: Accounts, parent: str | None = None
) -> tuple[str, str, str]:
    """Draft a suggestion, check it at the gate and queue it: (id, status, the gate's reason).

    One that cannot be drafted is kept too, refused, with the reason.
    """
    try:
        proposal = draft(opened, suggestion, origin, parent)
    except DjsbError as error:
        return _refuse(opened, suggestion, origin, str(error)), "refused", str(error)
    status, reason = submit(opened, proposal, accounts)
    return stored_id(opened, proposal), status, reason


def _refuse(opened: OpenStudy, suggestion: Suggestion, origin: Origin, reason: str) -> str:
    """Keep a suggestion that is no proposal; its id."""
    kind = suggestion.experiment.kind
    asked = {**suggestion.experiment.model_dump(mode="json"), "kind": ID_WORDS.get(kind, kind)}
    key = content_id([opened.setup, "refused", asked], 12)
    content = {"suggestion": suggestion.model_dump(mode="json"), "reason": suggestion.reason, "gate": reason}
    earlier = proposals.get(opened.store, key)
    with opened.store.transaction():
        proposals.put_content(opened.store, key, opened.setup, origin, kind, "none", "refused", None, content)
        if earlier is None or earlier.gate != reason:
            opened.store.event("refused", reason, key, "warning")
    return key


def draft(opened: OpenStudy, suggestion: Suggestion, origin: Origin, parent: str | None = None) -> Proposal:
    """The proposal that a suggestion asks for.

    Raises: Refused with the reason, in words that the one who suggested can act on.
    """
    experiment = suggestion.experiment
    kind = kind_of(experiment)
    kind.check(opened, experiment)
    if not kind.fits(opened.task):
        runs = ", ".join(runnable(opened.task))
        raise Refused(f"task {opened.study.task} runs no {experiment.kind} proposals; it runs {runs}")
    drafted = kind.draft(opened, experiment)
    proposal = Proposal(
        origin=origin, kind=experiment.kind, stage=drafted.stage, pools=tuple(drafted.pools),
        seeds=tuple(drafted.seeds), reason=suggestion.reason, cites=suggestion.cites,
        expected=suggestion.expected, fallback=suggestion.fallback, suggestion=suggestion, parent=parent,
        init=drafted.init,
    )  # fmt: skip
    if drafted.pools:
        _refuse_repetition(where(opened, proposal), drafted.pools, drafted.seeds)
    return proposal


def _refuse_repetition(opened: OpenStudy, pools: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Refuse what asks for no trial that is new, the control's aside."""
    ids = [trial_id(opened, r, seed) for r in pools if r.kind != "control" for seed in seeds]
    if len(trials.states(opened.store, ids)) == len(ids):
        raise Refused(f"a repetition: {', '.join(r.label for r in pools if r.kind != 'control')} was asked for before")
