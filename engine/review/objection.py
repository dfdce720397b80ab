"""What the paper's procedure thinks of another's proposal: a guard-rail of policies that approve without a person."""

from __future__ import annotations

from dataclasses import dataclass

from engine.proposals.kinds.registry import KINDS
from engine.records.pool import Slice
from engine.records.proposal import Proposal
from engine.search import grid
from engine.study.opened import OpenStudy


def objection(opened: OpenStudy, proposal: Proposal) -> str | None:
    """Why the paper's procedure would not ask for this, or None when it would."""
    kind = KINDS.get(proposal.kind)
    if kind is None:
        return f"the paper's procedure has no {proposal.kind}"
    return kind.objection(opened, proposal, Grid(opened))


@dataclass(frozen=True)
class Grid:
    """The procedure, as `engine/search/grid.py` has it."""

    opened: OpenStudy

    def combinations(self) -> set[frozenset[Slice]]:
        """See Procedure."""
        chosen = grid.lattice(*grid.chosen_slices(self.opened))
        return {frozenset(r.pool.slices[0] for r in ranked) for ranked in chosen}

    def recipes(self) -> set[tuple[Slice, ...]]:
        """See Procedure."""
        return {r.pool.slices for r in grid.recipes(self.opened)[: self.opened.study.scale.recipes]}
