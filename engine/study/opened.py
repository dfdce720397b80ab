"""An opened study: its folder, file, store, data and caches; what every command starts from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import plugins
from engine.base.arrays import save_array
from engine.base.confine import refuse_links
from engine.base.durable import is_whole
from engine.base.errors import StudyError
from engine.base.ids import content_id
from engine.base.paths import DATABASE, STATE_FOLDER, resolve
from engine.data import cuts as pool_cuts
from engine.data import fingerprints, statistics
from engine.data.columns import column_runs
from engine.data.cuts import Column, Cut, StatisticColumn
from engine.data.dataset import Dataset
from engine.data.fewer import first_cuts
from engine.data.fingerprints import content_hash
from engine.data.held_back import held_back
from engine.data.judged import Judged, Side
from engine.data.media import Unreadable
from engine.data.op_values import OpRun
from engine.data.overlap import Search, by_what
from engine.data.rare import with_rare
from engine.data.scan import Scan, leave_out, scan
from engine.data.tars import media_root
from engine.journal import caches, results, setups
from engine.journal.caches import Duplicate
from engine.journal.setups import Setup
from engine.journal.store import Store, now
from engine.records.metric import Metric
from engine.records.pool import BY_VALUE, MODEL_SCORE, Pool, Slice
from engine.settings.data import DatasetSection
from engine.settings.section import shared
from engine.settings.study import Study, explicit
from engine.study import model_scores
from engine.study.file import read_study
from engine.study.lock import EngineLock
from engine.study.overlaps import Comparison
from engine.study.soundness import Verified, verify
from engine.study.target import Probe, probe_of, rows_for
from engine.study.view import StudyView, view_study
from engine.tasks.contract import Form, Part, Rows
from engine.tasks.registry import task_names
from engine.tasks.shared.media import form_of, set_bound

# what is computed of a scan
SCANNED = (
    "scanned", "deduplicated", "scan", "evaluation_scan", "op_columns", "statistic_columns", "columns", "probe",
    "cuts",
)  # fmt: skip
# of the evaluation, what its content stands for, or what trials need not have in common
UNSHARED = {"path", "split", "metrics", "aggregate", "benchmarks", "sets", "overlap", "guards"}
# (what is done, rows done, rows in all)
Notice = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """No progress."""


@dataclass
class OpenStudy(StudyView):
    """A study with its data. Everything is computed when first asked for, and cached on disk by content.

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

    @cached_property
    def probe(self) -> Probe:
        """What a probe of a bucket trains on; of fewer rows where the target repeats them more often."""
        good, wanted = int(self.scan.good.sum()), self.study.pools
        size = pool_cuts.common_size(good, wanted.buckets, wanted.size, self.fewest_rows, wanted.places)
        return probe_of(self.study, size, self.fewest_rows)

    @property
    def pool_size(self) -> int:
        """Rows of every probed pool; a combination that keeps less of the data than a bucket may have fewer."""
        return self.probe.rows

    @property
    def epochs(self) -> float:
        """Passes over a pool of the common size."""
        return self.probe.epochs if self.probe.matched else self.study.train.epochs

    def rows_of(self, kept: int, size: int) -> int:
        """Rows of a pool that keeps so many, at the common samples; `size` where no target matters."""
        if not self.probe.matched:
            return size
        share = kept / int(self.scan.good.sum())
        rows = rows_for(self.study, self.probe.samples, share, self.fewest_rows)
        return min(size, kept, rows or size)

    @cached_property
    def cuts(self) -> list[Cut]:
        """The 3N single-OP buckets, and the pools beside them where the study asks for those."""
        size = self.pool_size  # a dataset that is too small is told before statistics are computed
        # what the first cycle's own control says comes after its probe, and is for proposals only
        sources = self.op_columns if self.init is None else self.statistic_columns
        section, good, seed = self.study.pools, self.scan.good, self.study.seed
        found = pool_cuts.single_op_cuts(
            [source for source in sources if source.op != BY_VALUE],
            good, section.buckets, size, section.min_distinct, seed, section.places,
        )  # fmt: skip
        beside = sources if section.rare else [source for source in sources if source.op == BY_VALUE]
        more = with_rare(found if section.rare else [], beside, good, size, section.min_distinct, seed)
        every = more if section.rare else [*found, *more]
        return every if section.most is None else first_cuts(every, sources, good, section.most)

    @cached_property
    def own(self) -> tuple[str, ...]:
        """Fields of what may be designed to the budget that study.yaml sets itself."""
        return explicit(self.study)

    def adopt(self, study: Study) -> None:
        """Go on with other sizes of pools, search and confirmation; data and setup are the same."""
        _ = self.own  # of the study as it was read
        self.study = study
        for name in ("probe", "cuts"):
            self.__dict__.pop(name, None)

    def realise(self, pool: Pool, seed: int = 0) -> NDArray[np.int64]:
        """The row numbers of a pool."""
        columns, spans = self.columns_of(pool), self.data.spans
        return pool_cuts.realise(pool, columns, self.scan.keys, self.scan.good, seed, spans)

    def shares_of(self, pool: Pool) -> list[tuple[int, int]]:
        """(rows that it gives, rows that it has) of each layer of a mixture."""
        shares = pool_cuts.shares_of(pool, self.columns_of(pool), self.scan.good, self.data.spans)
        return [(want, len(rows)) for want, rows in shares]

    def left_out(self, part: Slice) -> NDArray[np.int64]:
        """The good rows that have a value, and that a slice does not keep."""
        column = self.columns[part.statistic]
        return np.flatnonzero(self.scan.good & ~np.isnan(column.low) & ~pool_cuts.keeps(part, column))

    def columns_of(self, pool: Pool) -> Mapping[str, Column]:
        """The statistics that a pool is cut by; a model's own as its slices name the checkpoint, of whatever cycle."""
        slices = [s for layer in pool.layers for s in layer.slices]
        if not slices:
            return {}
        asked = {s.statistic: s for s in slices if s.op == MODEL_SCORE}
        if not asked:
            return self.columns
        scores = {
            name: model_scores.scored(self.store, dict(s.params)["checkpoint"], self.state, self.scanned.good)
            for name, s in asked.items()
        }
        return {**self.columns, **scores}

    def kept(self, pool: Pool) -> int:
        """Rows that any layer of a pool keeps."""
        return len(self.kept_rows(pool))

    def kept_rows(self, pool: Pool) -> NDArray[np.int64]:
        """Their numbers, ascending."""
        mask = np.zeros(len(self.data), bool)
        for layer in pool.layers:
            mask |= pool_cuts.eligible(layer, self.columns_of(pool), self.scan.good, self.data.spans)
        return np.flatnonzero(mask)

    def following(self, init: str) -> OpenStudy:
        """The cycle after this one, on the same data and pools, from the checkpoint of trial `init`."""
        return self.at(content_id([self.root, init], 12), init, self.cycle + 1)

    def at(self, setup: str, init: str | None, cycle: int) -> OpenStudy:
        """The study in another cycle; what was computed is shared."""
        other = super().at(setup, init, cycle)
        if self.study.pools.model_scores:
            other.forget_columns()
        return other

    @cached_property
    def root(self) -> str:
        """The setup of the first cycle."""
        lossy = [name for name, form in self.forms.items() if form == "jpeg"]
        return self._root(lossy)

    @cached_property
    def forms(self) -> dict[str, Form]:
        """How decoded media are kept: of the training rows, `train`, and of the evaluation, `evaluation`.

        A study that was begun when all were kept raw goes on so, for its trials' pixels are those.
        """
        size = self.task.medium(self.study, self.folder) if self.study.task else 0
        if not size:
            return {}
        found = {"train": form_of(self.study.cache, len(self.data), size)}
        if self.has_evaluation_rows:
            found["evaluation"] = form_of(self.study.cache, len(self.evaluation), size)
        if "jpeg" in found.values() and self.study.cache.form == "auto" and setups.get(self.store, self._root([])):
            return dict.fromkeys(found, "raw")
        return found

    def _root(self, lossy: list[str]) -> str:
        """The setup of the first cycle. lossy: sets of rows whose media are kept with small errors."""
        s = self.study
        parts = [
            self.data.fingerprint,
            shared(s.dataset, {"path", "split", "max_bad", "sources", "columns", "scores"}),
            s.seed,
            s.task,
            shared(s.model),
            self._checkpoint_content(),
            hashlib.blake2b(np.packbits(self.scan.good).tobytes(), digest_size=8).hexdigest(),
            shared(s.train, {"keep_checkpoints", "micro_batch", "activation_checkpointing"}),
        ]
        if s.task:
            shape = shared(s.evaluation, UNSHARED)
            parts += [self.evaluation_fingerprint, shape, self.task.traits.version]
            named = {**s.evaluation.benchmarks, **{f"set {n}": p for n, p in s.evaluation.sets.items()}}
            files = {n: content_hash(resolve(self.folder, p)) for n, p in named.items()}
            lora = s.lora.model_dump() if s.lora.rank else None
            media = {"lossy": lossy} if lossy else None
            given = plugins.plugin(plugins.TASKS, s.task) if s.task not in task_names() else None
            by = f"by {given.package}" if given else None
            parts += [x for x in (files, lora, self.task.shares(s, self.folder), media, by) if x]
        return content_id(parts, 12)

    @property
    def evaluation_fingerprint(self) -> str | None:
        """Content hash of what evaluation.path names; None without one."""
        if self.study.task is None or self.study.evaluation.path is None:
            return None
        return self.evaluation.fingerprint if self.has_evaluation_rows else content_hash(self._evaluation_file)

    def _checkpoint_content(self) -> list[str]:
        """Hashes of the checkpoint that replaces the preset: new weights at the same path are another model."""
        if self.study.model.checkpoint is None:
            return []
        folder = resolve(self.folder, self.study.model.checkpoint)
        kinds = ["*.safetensors", "*.json"]
        if not (folder / "config.json").exists():
            kinds.append("open_clip_pytorch_model.bin")
        files = sorted(file for kind in kinds for file in folder.glob(kind))
        hashes = []
        for file in files:
            with file.open("rb") as f:
                hashes.append(f"{file.name} {hashlib.file_digest(f, 'sha256').hexdigest()}")
        return hashes

    def record(self, measured: bool = True) -> None:
        """Write the study into the store and, once the evaluation is prepared, how its metrics are scaled."""
        setup = Setup(
            self.setup, self.study.name, self.data.fingerprint, self.evaluation_fingerprint,
            self.study.model_dump_json(), version("djsb"), now(),
        )  # fmt: skip
        with self.store.transaction():
            setups.put(self.store, setup)
            scales = tuple(self.metrics) if self.study.task and measured else ()
            results.METRIC_SCALES.put(self.store, self.setup, scales)

    @cached_property
    def prepared(self) -> Path:
        """The folder of the task's shared caches. Rows whose media changed since the scan are quarantined."""
        while True:
            try:
                return self.prepare(self._rows(self.data, self.scanned, "train"))
            except Unreadable as error:
                if "root" in self.__dict__:
                    raise  # trials of these rows are under way
                leave_out(error.data, self.store, self.state, error.rows)
                for name in SCANNED:
                    self.__dict__.pop(name, None)

    def prepare(self, train: Rows) -> Path:
        """The folder of the task's caches for these rows to train on, and the evaluation."""
        held = self._rows(self.evaluation, self.evaluation_scan, "evaluation") if self.has_evaluation_rows else None
        if set(self.forms.values()) - {"raw"} or (self.state / "cache" / "packs").exists():
            set_bound(self.state / "cache", self.study.cache.max_gb)
        notice = self._progress(f"caches of task {self.study.task}")
        return self.task.prepare(self.study, self.folder, train, held, self.workers, notice)

    def items_file(self, part: Part) -> Path | None:
        """File with the mask of the evaluation rows of a part, made where it is not; None without such rows."""
        if not self.has_evaluation_rows:
            return None
        back = self.rows_held_back
        mask = back if part == "held back" else ~back
        digest = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=8).hexdigest()
        file = self.state / "cache" / f"items-{digest}.npy"
        if not is_whole(file, sums=True):
            save_array(file, mask)
        return file

    @property
    def rows_held_back(self) -> NDArray[np.bool_]:
        """(rows,) evaluation rows that the search never sees."""
        return held_back(self.evaluation_scan.keys, self.held_back, self.study.seed)

    def _rows(self, data: Dataset, found: Scan, which: str) -> Rows:
        return Rows(data, media_root(data.path, self.state), found.good, form=self.forms.get(which, "raw"))

    @cached_property
    def metrics(self) -> list[Metric]:
        """All metrics that the task measures on this evaluation."""
        return self.task.metrics(self.study, self.prepared)


@contextmanager
def held(opened: OpenStudy, deep: bool = False) -> Iterator[Verified]:
    """The study for one engine alone, once what lies on its disk was compared with its seals; what came of that.

    All sums are compared when `deep`, and when the last engine was killed. Raises: LockedError, StoreError.
    """
    if deep:
        fingerprints.read_all_again()
    with EngineLock(opened.state) as lock:
        yield verify(opened.state, opened.store, opened.notice, deep or lock.unclean)


def open_study(folder: Path, workers: int | None = None, notice: Notice = silent) -> OpenStudy:
    """Open the study in a folder, to work on it.

    workers: processes for data work. Raises: StudyError, StoreError.
    """
    folder = folder.resolve()
    study = read_study(folder)
    state = folder / STATE_FOLDER
    try:
        state.mkdir(exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"{state} cannot be made ({error.strerror}); make {folder} writable, or copy the study elsewhere"
        ) from error
    refuse_links(folder, STATE_FOLDER)
    store = Store(state / DATABASE)
    fingerprints.keep_in(store)
    return OpenStudy(folder, study, store, workers=workers or os.cpu_count() or 1, most=workers, notice=notice)


def open_recorded(folder: Path) -> OpenStudy:
    """The study as the engine last recorded it, to look at it and at its data; nothing is written.

    Raises: NotStarted, StoreError when nothing was recorded yet.
    """
    return with_data(view_study(folder))


def with_data(view: StudyView) -> OpenStudy:
    """The same study, with its data."""
    opened = OpenStudy(view.folder, view.study, view.store)
    opened.root, opened.metrics = view.root, view.metrics
    return opened.at(view.setup, view.init, view.cycle)


def last_rung(opened: StudyView) -> tuple[float, int]:
    """(share of a training's steps, seeds) that pools have at the end of the search."""
    search = opened.study.search
    if search.strategy == "mixtures":
        return 1.0, 1
    return opened.rungs[-1] if search.strategy == "race" else (1.0, search.seeds)
