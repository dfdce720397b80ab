"""Drafting: a suggestion becomes a proposal with pools, lengths and seeds, or is refused with the reason.

Suggested pools run straight at the last rung of the study, against the control at the same seeds and steps, so that
they stand beside what the race or the grid has kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.base.errors import DjsbError
from engine.base.ids import content_id
from engine.data import catalogue
from engine.journal import proposals, trials
from engine.proposals.arms import trial_id
from engine.proposals.kinds.contract import Refused
from engine.proposals.kinds.cycle import draft_cycle
from engine.proposals.kinds.mapper import draft_mapper
from engine.proposals.kinds.prompt import draft_prompt
from engine.proposals.kinds.repeat import draft_repeat
from engine.proposals.kinds.seeds import draft_seeds
from engine.proposals.kinds.slices import draft_slices
from engine.proposals.kinds.transfer import draft_transfer
from engine.proposals.queue import stored_id, submit
from engine.records.experiment import Bucket, Combine, Cycle, Mapper, Prompt, Repeat, Scale, Seeds, Suggestion
from engine.records.proposal import Arm, Origin, Proposal
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.study.variants import where
from engine.tasks.contract import Task


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
    asked = suggestion.experiment.model_dump(mode="json")
    key = content_id([opened.setup, "refused", asked], 12)
    content = {"suggestion": suggestion.model_dump(mode="json"), "reason": suggestion.reason, "gate": reason}
    earlier = proposals.get(opened.store, key)
    with opened.store.transaction():
        kind = suggestion.experiment.kind
        proposals.put_content(opened.store, key, opened.setup, origin, kind, "none", "refused", None, content)
        if earlier is None or earlier.gate != reason:
            opened.store.event("refused", reason, key, "warning")
    return key


def draft(opened: OpenStudy, suggestion: Suggestion, origin: Origin, parent: str | None = None) -> Proposal:
    """The proposal that a suggestion asks for.

    Raises: Refused with the reason, in words that the one who suggested can act on.
    """
    wanted = suggestion.experiment
    if isinstance(wanted, Mapper):
        catalogue.check_mapper(wanted.op, wanted.params, opened.folder)
    if isinstance(wanted, Scale) and wanted.dataset is not None:
        catalogue.inside(opened.folder, wanted.dataset)
    runs = runnable(opened.task)
    if wanted.kind not in runs:
        raise Refused(f"task {opened.study.task} runs no {wanted.kind} proposals; it runs {', '.join(sorted(runs))}")
    if isinstance(wanted, Combine | Bucket):
        stage, pools, seeds = draft_slices(opened, wanted)
    elif isinstance(wanted, Repeat):
        stage, pools, seeds = draft_repeat(opened, wanted)
    elif isinstance(wanted, Seeds):
        stage, pools, seeds = draft_seeds(opened, wanted)
    elif isinstance(wanted, Cycle):
        stage, pools, seeds = draft_cycle(opened, wanted)
    elif isinstance(wanted, Mapper):
        stage, pools, seeds = draft_mapper(opened, wanted)
    elif isinstance(wanted, Scale):
        stage, pools, seeds = draft_transfer(opened, wanted)
    elif isinstance(wanted, Prompt):
        stage, pools, seeds = draft_prompt(opened, wanted)
    else:
        raise Refused(f"kind {wanted.kind} cannot be run")
    found = Proposal(
        origin=origin, kind=wanted.kind, stage=stage, pools=tuple(pools), seeds=tuple(seeds), reason=suggestion.reason,
        evidence=suggestion.evidence, expected=suggestion.expected, fallback=suggestion.fallback,
        suggestion=suggestion, parent=parent, init=wanted.checkpoint if isinstance(wanted, Cycle) else None,
    )  # fmt: skip
    if pools:
        _refuse_repetition(where(opened, found), pools, seeds)
    return found


def runnable(task: Task) -> frozenset[str]:
    """Kinds of proposals that can run: those of the task, and those that ask nothing of it but to train."""
    return task.traits.runs | {"cycle", "scale"}


def _refuse_repetition(opened: OpenStudy, pools: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Refuse what asks for no trial that is new, the control's aside."""
    ids = [trial_id(opened, r, seed) for r in pools if r.kind != "control" for seed in seeds]
    if len(trials.states(opened.store, ids)) == len(ids):
        raise Refused(f"a repetition: {', '.join(r.label for r in pools if r.kind != 'control')} was asked for before")
