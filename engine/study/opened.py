"""An opened study: its folder, file, store, data and caches; what every command starts from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

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
from engine.data import fingerprints
from engine.data.cuts import Column, Cut
from engine.data.dataset import Dataset
from engine.data.fewer import first_cuts
from engine.data.fingerprints import content_hash
from engine.data.held_back import held_back
from engine.data.media import Unreadable
from engine.data.rare import with_rare
from engine.data.scan import Scan, leave_out
from engine.data.tars import media_root
from engine.journal import results, setups
from engine.journal.setups import Setup
from engine.journal.store import Store, now
from engine.records.metric import Metric
from engine.records.pool import BY_VALUE, MODEL_SCORE, Pool, Slice
from engine.settings.section import shared
from engine.settings.study import Study, explicit
from engine.study import model_scores
from engine.study.file import read_study
from engine.study.lock import EngineLock
from engine.study.rows import Notice, StudyRows, silent
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


class OpenStudy(StudyRows):
    """A study with its data, pools and caches."""

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
