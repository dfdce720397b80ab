"""Caption prompts (Appendix E.12): each asked of every cycle's checkpoint, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.evidence.comparison import paired_changes
from engine.journal import checkpoints, cycles, metrics, results
from engine.journal.metrics import Scores
from engine.study.view import StudyView

STAGE = "prompts"


@dataclass(frozen=True)
class Column:
    """A cycle's checkpoint that captions. path: its folder, relative to the study's."""

    cycle: int
    setup: str
    trial: str
    path: str


def columns(view: StudyView) -> list[Column]:
    """The checkpoint of each cycle that captions; a cycle without a kept one is left out.

    The best of the cycle's confirmed recipe or, where that is not kept, the best that is.
    """
    metric = view.main_metrics[0] if view.metrics else None
    asked = []
    for cycle in cycles.chain(view.store, view.setup):
        end = results.CYCLE.get(view.store, cycle.setup)
        kept = checkpoints.best_kept(view.store, cycle.setup, metric, end.checkpoint if end else None)
        if kept is not None:
            asked.append(Column(cycle.cycle, cycle.setup, kept.trial, kept.path))
    return asked


@dataclass(frozen=True)
class Cell:
    """A prompt's scores on one checkpoint.

    change: against the control of the checkpoint's seed, asked with the study's own prompt, in percent; None where
    there is no such control.
    """

    scores: Scores | None
    change: float | None


@dataclass(frozen=True)
class PromptRow:
    """A prompt on every checkpoint. own: it is the study's."""

    prompt: str
    own: bool
    cells: list[Cell]


@dataclass(frozen=True)
class PromptTable:
    """Table 16: a row a prompt, a column a checkpoint. One checkpoint is asked, so there is no interval."""

    columns: list[Column]
    rows: list[PromptRow]
    metrics: list[str]

    def to_json(self) -> dict[str, Any]:
        """As `djsb show prompts --json` prints it."""
        columns = [{"cycle": c.cycle, "setup": c.setup, "trial": c.trial} for c in self.columns]
        return {**asdict(self), "columns": columns}


def prompt_table(view: StudyView, prompts: Sequence[str]) -> PromptTable | None:
    """The study's own prompt first, then the others by their result in the first cycle; None without prompts."""
    answers = {
        c: scores for c in columns(view)
        if (scores := (results.PROMPTS.get(view.store, c.setup) or {}).get(c.trial))
    }  # fmt: skip
    if not answers:
        return None
    own = view.study.vlm.prompt
    rows = [
        PromptRow(p, p == own, [_cell(view, c, scores.get(p)) for c, scores in answers.items()])
        for p in dict.fromkeys([own, *prompts])
    ]
    rows[1:] = sorted(rows[1:], key=lambda r: -(r.cells[0].change or 0.0))
    return PromptTable(list(answers), rows, [m.name for m in view.main_metrics])


def _cell(view: StudyView, column: Column, scores: Scores | None) -> Cell:
    control = metrics.of_control(view.store, column.trial)
    if not scores or not control:
        return Cell(scores, None)
    changes, _, _ = paired_changes({0: scores}, {0: control}, view.main_metrics, view.study.evaluation.aggregate)
    return Cell(scores, changes.get(0))
