"""`import djsb`: studies from Python and notebooks. Each call answers as the command of the same name does.

    study = djsb.open_study("my-study")
    study.run("2gpu-hours")
    study.rank().to_pandas()
    study.answer()

Nothing waits for a terminal. Errors are `djsb.Error`, one plain line each. A study that another process works on can
be looked at meanwhile.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from engine.base.errors import Awaited
from engine.base.errors import DjsbError as Error
from engine.base.installed import need_engine
from engine.journal.store import Row
from engine.records.answer import Answer as AnswerRecord
from engine.records.leaderboard import Entry

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pandas
    import polars
    from numpy.typing import NDArray

    from app.report.figures import Picture

Verdict = Literal["approve", "reject", "hold"]
Stage = Literal["probe", "combine", "scale", "confirm"]
HEAD = ("", "verdict", "pool", "change", "interval", "seeds", "id")
SYMBOLS = {"helps": "▲", "hurts": "▼"}

__all__ = ["Answer", "Awaited", "Ended", "Entry", "Error", "Leaderboard", "Study", "init", "open_study"]


def open_study(folder: str | Path) -> Study:
    """The study in a folder that holds a study.yaml. Raises: Error in one line that names what is wrong."""
    from engine.study.file import read_study

    read_study(Path(folder))
    return Study(Path(folder).resolve())


def init(
    folder: str | Path, data: str | Path, evaluation: str | Path | None = None, *, task: str | None = None,
    split: str | None = None, eval_split: str | None = None, force: bool = False,
) -> Study:  # fmt: skip
    """Look at the data and write a study.yaml with the OPs that fit it, as `djsb init` does.

    evaluation: rows to judge on, never trained on. split, eval_split: of data that have several. force: replace a
    study.yaml that is there. Raises: Error.
    """
    need_engine("djsb.init")
    from app.commands.init import write_study

    rows = None if evaluation is None else Path(evaluation)
    write_study(Path(folder), Path(data), rows, task, force, split, eval_split)
    return open_study(folder)


@dataclass(frozen=True)
class Answer:
    """What a study says now, as `djsb status` begins."""

    record: AnswerRecord

    @property
    def kind(self) -> str:
        """recipe: one is confirmed; none: what was tried is not better; open: nothing is concluded yet."""
        return self.record.kind

    @property
    def text(self) -> str:
        """The answer in one sentence."""
        return self.record.text

    @property
    def lines(self) -> list[str]:
        """The answer, what it rests on, what would get a better one."""
        return self.record.lines

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        first, *rest = map(escape, self.lines)
        return f"<p><b>{first}</b></p>" + "".join(f"<p>{line}</p>" for line in rest)


@dataclass(frozen=True)
class Leaderboard(Sequence[Entry]):
    """The pools, best first, each with its change against the control in percent and its interval."""

    entries: tuple[Entry, ...]

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Leaderboard: ...
    def __getitem__(self, at: int | slice) -> Entry | Leaderboard:
        return self.entries[at] if isinstance(at, int) else Leaderboard(self.entries[at])

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def to_rows(self) -> list[Row]:
        """A row a pool: the fields of `djsb rank --json`, with a column a metric in place of nested ones."""
        return [_flat(entry.to_json()) for entry in self.entries]

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a table of pandas."""
        import pandas

        return pandas.DataFrame(self.to_rows())

    def to_polars(self) -> polars.DataFrame:
        """The rows as a table of polars, which is no dependency of djsb. Raises: Error without it."""
        try:
            import polars
        except ModuleNotFoundError:
            raise Error("to_polars needs polars: pip install polars") from None
        return polars.DataFrame(self.to_rows(), infer_schema_length=None)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEAD)
        body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in cells)}</tr>" for cells in map(_cells, self.entries))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Ended:
    """How a run ended: done, budget, failed, stopped or awaiting (a decision), with a note. answer: what stands now."""

    how: str
    note: str
    answer: Answer

    def _repr_html_(self) -> str:
        return f"{self.answer._repr_html_()}<p>{escape(f'ended: {self.how}. {self.note}')}</p>"


@dataclass(frozen=True)
class Study:
    """A study in a folder. It holds nothing open: every call reads what is there then."""

    folder: Path

    def run(
        self, budget: str | None = None, *, until: Stage = "confirm", approve: Literal["auto", "hold"] | None = None,
        workers: int | None = None,
    ) -> Ended:  # fmt: skip
        """Run the loop to its end, or to the budget's, as `djsb auto`; the same call goes on where it ended.

        budget: device time in all, e.g. "8gpu-hours". approve: hold: every proposal waits for a person. Progress goes
        to standard error. An interrupt lets running trials finish, a second one ends them. Raises: Error.
        """
        need_engine("study.run")
        from app.commands import auto

        try:
            with _own_signals():
                ended = auto.run(self.folder, budget, until, approve, workers)
        except Awaited as awaited:
            return Ended("awaiting", str(awaited), self.answer())
        return Ended(ended.how, ended.note, self.answer())

    def status(self) -> Row:
        """Stages, running trials, what is spent, what awaits a decision: as `djsb status --json`."""
        from app.commands.status import status

        return status(self.folder)

    def check(self, *, deep: bool = False, workers: int | None = None) -> Row:
        """What the study holds and lacks, as `djsb check --json`; `problems` stop a run."""
        from app.commands.check import check

        return check(self.folder, workers, _silent, deep)

    def answer(self) -> Answer:
        """The study's answer with its reasons."""
        from engine.evidence.answer import answer
        from engine.study.view import view_study

        view = view_study(self.folder)
        with closing(view.store):
            return Answer(answer(view))

    def rank(self, cycle: int | None = None) -> Leaderboard:
        """The leaderboard, of the last cycle by default."""
        from engine.evidence.ranking import leaderboard
        from engine.study.setting import shown
        from engine.study.view import view_study

        view = view_study(self.folder, cycle)
        with closing(view.store):
            return Leaderboard(tuple(leaderboard(shown(view)[0])))

    def results(self) -> pandas.DataFrame:
        """Every measured value: pool, label, seed, stage, samples, metric, value."""
        import pandas

        from engine.journal.metrics import every
        from engine.study.view import view_study

        view = view_study(self.folder)
        with closing(view.store):
            return pandas.DataFrame([asdict(measured) for measured in every(view.store, view.setup)])

    def pool(self, id: str, seed: int = 0) -> NDArray[np.int64]:
        """(size,) the row numbers of the data that a trial of the seed trains on, in order. id: or its beginning."""
        from engine.evidence.recipe_file import find_pool
        from engine.study.opened import open_study

        opened = open_study(self.folder)
        with closing(opened.store):
            rows = opened.realise(find_pool(opened, id).pool, seed)
        rows.sort()
        return rows

    def dataset(self, id: str, seed: int = 0) -> datasets.Dataset:
        """The same rows as a data set of Hugging Face's `datasets`, with the fields that the data have."""
        import datasets

        from engine.study.opened import open_study

        rows = self.pool(id, seed)
        opened = open_study(self.folder)
        with closing(opened.store):
            return datasets.Dataset.from_list(list(opened.data.joined.take(rows)))

    def show(self, id: str) -> Row:
        """A pool, trial or proposal by its id, or recipe, lineage, scaling, mappers, prompts: as `djsb show --json`."""
        from app.commands.show import show

        return show(self.folder, id)

    def proposals(self, status: str | None = None) -> list[Row]:
        """Every proposal, oldest first: id, origin, kind, status, cost, reason, content."""
        from app.commands.proposals import proposals

        return proposals(self.folder, status)

    def propose(self, suggestion: Mapping[str, Any]) -> Row:
        """Put a suggestion of yours to the gate and queue it: {experiment, reason, cites …} (docs/guides/agent.md)."""
        from app.commands.proposals import proposals
        from engine.review.desk import opened_study, queue_suggestion

        opened, accounts = opened_study(self.folder)
        with closing(opened.store):
            key = queue_suggestion(opened, accounts, dict(suggestion))
        return next(row for row in proposals(self.folder, None) if row["id"] == key)

    def decide(self, proposal: str, verdict: Verdict, why: str = "") -> Row:
        """Approve, reject or hold a proposal that waits, in the name of the user of this machine."""
        from app.commands.review import review

        return review(self.folder, proposal, False, verdict, why)

    def recipe(self, pool: str | None = None) -> str:
        """The confirmed recipe, or a pool's, as YAML for Data-Juicer and `djsb apply`. Raises: Error without one."""
        from engine.evidence.recipe_file import recipe

        return recipe(self.folder, pool)

    def figures(self) -> dict[str, Picture]:
        """The report's figures by name; notebooks show them, `.png` and `.svg` hold them."""
        from app.report.page import figures

        return figures(self.folder)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report; its HTML file."""
        from app.report.page import write_report

        return write_report(self.folder, None if out is None else Path(out))

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self.folder))}</p>{self.answer()._repr_html_()}"


@contextmanager
def _own_signals() -> Iterator[None]:
    """The handlers of signals afterwards as they were before. Raises: Error outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        raise Error("run a study in the main thread, which alone hears of interrupts")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _flat(row: Row) -> Row:
    found = {name: value for name, value in row.items() if name not in ("metrics", "values", "skipped")}
    found |= {f"change {name}": value for name, value in row["metrics"].items()}
    for name, (pool, control) in row["values"].items():
        found |= {name: pool, f"{name} of the control": control}
    return found | {"skipped": "; ".join(row["skipped"])}


def _cells(entry: Entry) -> list[str]:
    change = "–" if entry.change is None else f"{entry.change:+.1f} %"
    interval = "–" if entry.ci_low is None else f"[{entry.ci_low:+.1f}, {entry.ci_high:+.1f}]"
    cells = [SYMBOLS.get(entry.verdict, "·"), entry.verdict, entry.label, change, interval, entry.seeds, entry.pool]
    return [escape(str(cell)) for cell in cells]


def _silent(what: str, done: int, total: int, detail: str = "") -> None:
    """No progress is shown."""
