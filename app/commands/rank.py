"""What the looking commands print: each question is answered once, as JSON, and shown as text from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.text.answer import show_answer
from app.text.boards import show_boards
from app.text.numbers import VERDICTS, chance, common_notes, folded, percent, values_text
from app.text.printable import say, say_table, terminal_width
from engine.base.errors import StudyError
from engine.base.paths import DATABASE, STATE_FOLDER
from engine.journal.store import Row
from engine.records.leaderboard import NEAR_ZERO

if TYPE_CHECKING:
    from engine.pipeline.board import Board


def rank(folder: Path, cycle: int | None, tell: Callable[[str], None], settings: bool = False) -> Ranking:
    """The leaderboard of a cycle; None: of the one that the engine was in last. tell: of the metrics' directions.

    settings: other settings of study.yaml instead, those that have results.
    """
    from engine.evidence.answer import answer
    from engine.evidence.ranking import leaderboard
    from engine.study.setting import differences, earlier, shown
    from engine.study.view import NotStarted, view_study

    ranked = pipeline_boards(folder)
    try:
        opened = view_study(folder, cycle)
    except NotStarted:
        if not ranked:
            raise
        return Ranking({}, [], 0, ranked)
    told = answer(opened).to_json()["answer"]
    if settings:
        others = [(s, differences(s.view.study, opened.study)) for s in earlier(opened)]
        rows = [
            {**e.to_json(), "setting": s.view.setup, "changed": changed}
            for s, changed in others for e in leaderboard(s.view)
        ]  # fmt: skip
        return Ranking(told, rows, 0, ranked)
    view, _ = shown(opened)
    found = [e.to_json() for e in leaderboard(view)]
    if not found:
        raise StudyError(f"no pool was cut yet in {folder}; start with: djsb auto {folder}")
    tell(f"metrics: {', '.join(m.direction for m in view.main_metrics)}")
    return Ranking(told, found, len([s for s in earlier(opened) if s.view.setup != view.setup]), ranked)


def pipeline_boards(folder: Path) -> list[Row]:
    """What pipelines ranked in a folder, the latest run first, each with a title."""
    from engine.journal import jobs
    from engine.pipeline.board import last_boards
    from engine.study.view import store_to_read

    state = folder / STATE_FOLDER
    if not (state / DATABASE).exists():
        return []
    with store_to_read(state) as store:
        return [
            {"run": run.run, "title": " / ".join([run.project, run.experiment, *_which(board)]), **asdict(board)}
            for run in jobs.runs(store) for board in last_boards(jobs.scores(store, run.run))
        ]  # fmt: skip


def _which(board: Board) -> list[str]:
    named = (("variant", board.variant), ("iteration", board.iteration))
    return [f"{word} {number}" for word, number in named if number > 1]


@dataclass(frozen=True)
class Ranking:
    """answer: the study's, as of `djsb status --json`. others: settings of study.yaml beside that have results.

    pipelines: tables of what `djsb run` ranked in the same folder.
    """

    answer: Row
    rows: list[Row]
    others: int
    pipelines: list[Row]


def show_ranking(found: Ranking, every: bool) -> None:
    """As people read it: the answer, then the tables. every: with what was dropped or left out."""
    if found.answer:
        show_answer(found.answer)
    for setting, rows in _grouped(found.rows, lambda r: (r.get("setting"), r.get("changed"))):
        if setting[0]:
            say(f"\nsetting {setting[0]} (to the study as it is: {setting[1]})")
        show_rank(rows, every)
    if found.others:
        say(f"{found.others} other setting(s) of study.yaml have results: djsb rank --setting")
    show_boards(found.pipelines)


COLUMNS = ("rank", "verdict", "pool", "change %", "expected %", "interval", "P(best)", "seeds", "id", "note")
FURTHER = ("std", "bound %", "p", "q", "values")  # with --all, or where the terminal has room
SPARED = (
    "values",
    "std",
    "q",
    "bound %",
    "p",
    "rank",
    "note",
    "seeds",
    "expected %",
    "P(best)",
)  # the first goes first
EXPECTED = "expected: what fresh seeds are expected to show, since the best of many was lucky, too"
FURTHER_SAID = (
    "bound: what the claim says at least; p: chance that any pool goes so far where none differs; q: share of wrong "
    "claims among pools as clear as this one; values: of the pool / of the control"
)
WIDE = 160  # characters of a terminal


def show_rank(found: list[Row], every: bool = False) -> None:
    """A table for each size and length, so that only what is alike stands together."""
    shown = [r for r in found if every or not folded(r)]
    more = every or (terminal_width() or 0) >= WIDE
    groups = _grouped(shown, lambda r: (r.get("size"), r.get("share")))
    for (size, share), rows in groups:
        if size is not None:
            length = "left out" if not share else f"{100 * share:g} % of the steps"
            say(f"{size:,} rows, {length}:")
        _show_alike(rows, more)
    said = [EXPECTED] if any(r.get("shrunk") is not None for r in shown) else []
    for line in [*said, *([FURTHER_SAID] if more and any(r.get("p") is not None for r in shown) else [])]:
        say(line)
    hidden = [("dropped by the race", sum(bool(r.get("dropped")) and folded(r) for r in found))]
    hidden.append(("left out", sum(r["verdict"] == "degenerate" for r in found)))
    if not every and any(n for _, n in hidden):
        say(f"not shown: {', '.join(f'{n} {what}' for what, n in hidden if n)}: djsb rank --all")


def _show_alike(rows: list[Row], more: bool) -> None:
    """One table. What is noted of all its pools is said once, below it."""
    common = common_notes(rows)
    further = FURTHER if more else FURTHER[-1:] if any(NEAR_ZERO in line for r in rows for line in r["skipped"]) else ()
    cells = [_cells(i, r, common) for i, r in enumerate(rows, 1)]
    ahead = COLUMNS[: COLUMNS.index("id")]
    columns = [*ahead, *further, *COLUMNS[len(ahead) :]]
    columns = [n for n in columns if n not in (*FURTHER, "expected %") or any(c[n] != "–" for c in cells)]
    say_table([[c[name] for name in columns] for c in cells], columns, SPARED)
    for line in common:
        say(f"all of them: {line}")


def _grouped(rows: list[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    """Rows by what they have in common, in the order in which each group begins."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.items())


def _cells(place: int, r: Row, common: Sequence[str] = ()) -> dict[str, str]:
    notes = [line for line in r["skipped"] if line not in common]
    return {
        "rank": str(place) if r["change"] is not None else "–", "verdict": VERDICTS[r["verdict"]] + " " + r["verdict"],
        "pool": r.get("label", r["pool"]), "change %": percent(r["change"]), "expected %": percent(r.get("shrunk")),
        "interval": "–" if r["ci_low"] is None else f"[{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]",
        "P(best)": "–" if r["p_best"] is None else f"{r['p_best']:.2f}", "seeds": str(r["seeds"]),
        "std": "–" if r["std"] is None else f"{r['std']:.1f}", "bound %": percent(r.get("bound")),
        "p": chance(r.get("p")), "q": chance(r.get("q")), "values": values_text(r.get("values") or {}), "id": r["pool"],
        "note": "; ".join([*notes, *([f"dropped: {r['dropped']}"] if r.get("dropped") else [])]),
    }  # fmt: skip
