"""The rows of a study, training and evaluation: read, scanned, compared, and their statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base.errors import StudyError
from engine.base.paths import resolve
from engine.data import statistics
from engine.data.columns import column_runs
from engine.data.cuts import Column, StatisticColumn
from engine.data.dataset import Dataset
from engine.data.judged import Judged, Side
from engine.data.op_values import OpRun
from engine.data.overlap import Search, by_what
from engine.data.scan import Scan, scan
from engine.data.tars import media_root
from engine.journal import caches
from engine.journal.caches import Duplicate
from engine.settings.data import DatasetSection
from engine.study import model_scores
from engine.study.overlaps import Comparison
from engine.study.view import StudyView

# (what is done, rows done, rows in all)
Notice = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """No progress."""


@dataclass
class StudyRows(StudyView):
    """A study with its rows. Everything is computed when first asked for, and cached on disk by content.

    workers: processes for data work here. most: how many a person allows here or on a cluster; None: all.
    """

    workers: int = 1
    most: int | None = None
    notice: Notice = field(default=silent)

    @cached_property
    def data(self) -> Dataset:
        """The training rows."""
        section, index = self.study.dataset, self.state / "cache" / "rows"
        return Dataset(resolve(self.folder, section.path), section, index, self.folder)

    @property
    def has_evaluation_rows(self) -> bool:
        """True when the task reads evaluation.path as rows, and it is set."""
        named = self.study.task is not None and self.study.evaluation.path is not None
        return named and self.task.traits.reads_evaluation is not None

    @property
    def fewest_rows(self) -> int:
        """Rows that a pool must have."""
        return (self.task.traits.fewest_rows or self.study.train.batch_size) if self.study.task else 2

    @property
    def _evaluation_file(self) -> Path:
        path = self.study.evaluation.path
        if path is None:
            raise StudyError("evaluation.path is not set; name rows that are never trained on")
        file = resolve(self.folder, path)
        trained = {(part.path, part.fields.split) for part in (self.data, *self.data.parts.values())}
        if (file, self.study.evaluation.split) in trained:
            raise StudyError("evaluation.path is the training data itself; hold some rows out")
        return file

    @cached_property
    def evaluation(self) -> Dataset:
        """The evaluation rows; fields are named as in the dataset, and may be absent where the task does without."""
        path, file, fields = str(self.study.evaluation.path), self._evaluation_file, self.study.dataset
        split = self.study.evaluation.split
        reader = Dataset(file, fields.model_copy(update={"split": split, "sources": {}}), self.data.index).reader
        if reader.unnamed:
            raise StudyError(f"evaluation.path has the splits {', '.join(reader.unnamed)}; set evaluation.split to one")
        head = reader.read(0, 100)
        present = {key for row in head for key in row}
        wanted = self.task.traits.reads_evaluation or frozenset()
        names: dict[str, Any] = {
            name: value if value in present or name in wanted else None
            for name, value in (("text", fields.text), ("images", fields.images), ("videos", fields.videos))
        }
        section = DatasetSection(path=path, split=split, id=None, max_bad=self.study.dataset.max_bad, **names)
        found = Dataset(file, section, self.data.index)
        if found.fingerprint in {part.fingerprint for part in (self.data, *self.data.parts.values())}:
            raise StudyError("evaluation.path is a copy of the training data; hold some rows out")
        return found

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.notice(what, done, total)

    def _crew(self, data: Dataset) -> AbstractContextManager[None]:
        """Within the block, data work is done by the study's executor."""
        if self.study.executor.kind != "ray":
            return nullcontext()
        from engine.data.cluster_chunks import on_cluster  # Ray takes a second to import

        def tell(text: str) -> None:
            self.store.event("cluster", text, level="warning")

        shared = [data.path, *(part.path for part in data.parts.values())]
        shared += [file for table in data.scores for file in table.files]
        return on_cluster(self.study.executor, self.most, self.state, shared, tell)

    @cached_property
    def scanned(self) -> Scan:
        """Keys and quarantine of the training rows, duplicates among them: what caches are made of."""
        with self._crew(self.data):
            return scan(self.data, self.store, self.state, self.workers, self._progress("scan of the data"))

    @cached_property
    def scan(self) -> Scan:
        """The rows that may stand in a pool: those without duplicates, less those that are like what the models are
        judged by, where the study drops such.

        Raises: DataError where it refuses them.
        """
        found = self.deduplicated
        return found if self.study.evaluation.overlap == "warn" else self.comparison.without(found)

    @property
    def comparison(self) -> Comparison:
        """The training rows beside all that models are judged by. Raises: DataError."""
        every: list[Judged] = []
        if self.has_evaluation_rows and (by := by_what(self.data, self.evaluation)):
            held = Side(self.evaluation, media_root(self.evaluation.path, self.state), self.evaluation_scan.good)
            every.append(Judged("", "evaluation rows", by, held))
        if self.study.task:
            every += self.task.judged_by(self.study, self.folder)
        train = Side(self.data, media_root(self.data.path, self.state), self.deduplicated.good)
        notice = self._progress("search for evaluation rows in the data")
        search = Search(train, self.study.dedup, self.state, self.workers, progress=notice)
        named = [judged for judged in every if getattr(self.data.fields, judged.by)]
        return Comparison(search, named, self.study.evaluation.overlap, lambda: self._crew(self.data))

    @cached_property
    def deduplicated(self) -> Scan:
        """The same without duplicates, where the study leaves them out."""
        found, section = self.scanned, self.study.dedup
        if section == type(section)():
            return found
        from engine.data.dedup import without_duplicates

        notice = self._progress("search for duplicates")
        with self._crew(self.data):
            good = without_duplicates(section, self.data, found.good, self.store, self.state, self.workers, notice)
        return replace(found, good=good, duplicates=int((found.good & ~good).sum()))

    def duplicates(self) -> list[Duplicate]:
        """Rows that were left out as duplicates."""
        from engine.data.dedup import removal_id

        if not self.scan.duplicates:
            return []
        name = removal_id(self.study.dedup, self.data, self.scanned.good)
        return caches.duplicates(self.store, name)

    @cached_property
    def evaluation_scan(self) -> Scan:
        """The same of the evaluation rows."""
        told = self._progress("scan of the evaluation")
        with self._crew(self.evaluation):
            return scan(self.evaluation, self.store, self.state, self.workers, told)

    @cached_property
    def op_plan(self) -> tuple[list[OpRun], list[statistics.LeftOut]]:
        """OPs that run, and OPs that are left out with the reason."""
        runs, left = statistics.plan_ops(self.study.ops, self.data, self.folder, self.study.scores)
        fields = column_runs(self.study.dataset, self.data)
        own = self.task.traits.scores if self.study.task and self.study.pools.model_scores else None
        statistics.refuse_same(runs, fields, [own] if own else [])
        return [*runs, *fields], left

    @cached_property
    def statistic_columns(self) -> list[StatisticColumn]:
        """Every statistic of every OP that runs, and the model's own once its checkpoint has scored the rows."""
        if not self.study.pools.model_scores:
            return self.op_columns
        return [*self.op_columns, *model_scores.columns(self.store, self.setup, self.state, self.scanned.good)]

    def forget_columns(self) -> None:
        """Read the statistics and cut the buckets again when they are next asked for."""
        for name in ("statistic_columns", "columns", "cuts"):
            self.__dict__.pop(name, None)

    @property
    def needs_ops(self) -> bool:
        """False for a study of mixtures that names none."""
        return bool(self.study.ops) or self.study.search.strategy != "mixtures"

    @cached_property
    def op_columns(self) -> list[StatisticColumn]:
        """Every statistic of every OP that runs."""
        runs, _ = self.op_plan
        if not self.needs_ops:
            return []
        if not runs:
            raise StudyError("no OP of the study can run here; see djsb check, and add OPs under ops")
        good, told = self.scanned.good, self._progress("statistics")
        with self._crew(self.data):
            return statistics.compute(
                runs, self.data, good, self.store, self.state, self.workers, told, self.study.scores
            )

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Statistic → its values."""
        return {c.statistic: c.column for c in self.statistic_columns}
