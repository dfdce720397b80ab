"""Tasks: what is trained and how it is judged. One folder a task, `engine/tasks/NAME/task.py` with its `TASK`.

`prepare` runs once per study in the engine's process; `run` runs in a worker, once per trial. A task's module imports
torch inside its functions only, so that a study can be read without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.base.durable import share
from engine.base.thinning import NAME, NAMES, Thinning
from engine.data.dataset import Dataset
from engine.data.judged import Judged
from engine.records.accounting import Accounting
from engine.records.metric import Metric
from engine.settings.study import Study

# raw: all in one array; exact, jpeg: what is drawn, in packs, with the same pixels or with small errors
Form = Literal["raw", "exact", "jpeg"]
Progress = Callable[[int, int], None]
# of the evaluation's items: those that are not held back are the search's
Part = Literal["all", "search", "held back"]
BARE = "DJSB_BARE"
POINTS = 1000  # of a curve, before every second one is left out
WORTH = 0.05  # share by which a larger pack must be faster


@dataclass(frozen=True)
class Rows:
    """Rows that a task reads: root: folder of their relative media paths. good: (rows,) those not quarantined.

    like: caches of the rows that mappers made these from, whose tokenizer and base model are theirs as well; None for
    rows as they are. same: which of text, image and video no mapper has changed. form: how decoded media are kept.
    """

    data: Dataset
    root: Path
    good: NDArray[np.bool_]
    like: Path | None = None
    same: frozenset[str] = frozenset()
    form: Form = "raw"

    def share(self, target: Path, always: Sequence[str], text: Sequence[str] = (), media: Sequence[str] = ()) -> None:
        """Link into `target` what it has in common with the caches `like`: `always`; what is made of text or of media
        only where no mapper has changed those. Files and folders that are missing there are left out.
        """
        wanted = [*always, *(text if "text" in self.same else ()), *(media if {"image", "video"} <= self.same else ())]
        for name in wanted if self.like else ():
            share(Path(str(self.like)), name, target)


@dataclass(frozen=True)
class Job:
    """One trial as a worker gets it. All of it is JSON.

    rows: file with the pool's row numbers. samples: rows to train on in total, repeats counted.
    init: folder of the checkpoint to start from, or None. micro_batch: rows at once, or None for the study's.
    horizon: samples of the whole schedule, of which this is the beginning; None: `samples`. resume: file of the state
    to go on from, or None. pause: file to leave the state in at the end, or None. part: of the evaluation, that it is
    judged on. items: file with the mask of that part's rows in evaluation.path, or None for all. park: beginning of the
    name of the file for the state of a training that is broken off on the way, or None.
    """

    trial: str
    rows: str
    samples: int
    seed: int
    init: str | None
    output: str
    micro_batch: int | None = None
    horizon: int | None = None
    resume: str | None = None
    pause: str | None = None
    part: Part = "all"
    items: str | None = None
    park: str | None = None


@dataclass
class Report:
    """Messages of running trials: curve points out; ids of trials to stop in.

    dropped: ids of such trials; asked for at every curve point. describe: takes a trial and how it is trained, once its
    training begins: precision, attention, optimiser and the like. leaving: whether the device is to be left, and what
    trains is to be broken off in a state from which it goes on. parked: samples that such trials have trained.
    """

    emit: Callable[[str, dict[str, Any]], None]
    dropped: Callable[[], set[str]] = set
    total: int = 0
    describe: Callable[[str, dict[str, Any]], None] = lambda _trial, _facts: None
    leaving: Callable[[], bool] = lambda: False
    parked: dict[str, int] = field(default_factory=dict)
    _thinning: Thinning = field(default_factory=lambda: Thinning(POINTS))

    def curve(self, trial: str, step: int, /, **values: float) -> None:
        """Report a trial's values at a step; of very many points some are left out, but not the last."""
        if values := self._thinning.keep(trial, step, values):
            self._emit(trial, step, values)

    def park(self, job: Job, step: int, steps: int) -> str:
        """The file for the state of a training that is broken off after a step, which is told of at the job's end."""
        samples = min(job.samples - 1, job.samples * step // steps)
        self.parked[job.trial] = samples
        return f"{job.park}-{samples}-{job.samples}.safetensors"

    def end(self) -> None:
        """Report the last points, where they were left out."""
        for trial, step, values in self._thinning.rest():
            self._emit(trial, step, values)
        if self._thinning.left_out:  # to the worker's log
            print(f"curves beyond {NAMES}, or with names of more than {NAME} characters, are left out", file=sys.stderr)

    def _emit(self, trial: str, step: int, values: dict[str, float]) -> None:
        self.emit("curve", {"trial": trial, "step": step, "total": self.total, "values": values})


SILENT = Report(lambda _kind, _content: None)


def best_pack(seconds: Mapping[int, float]) -> int:
    """The smallest pack within 5 % of the fastest. seconds: per member's sample, by the members of a pack."""
    return min(k for k, s in seconds.items() if s <= (1 + WORTH) * min(seconds.values()))


@dataclass(frozen=True)
class Kept:
    """Bytes of a checkpoint, and of the state of a training that may go on, at most."""

    checkpoint: int
    state: int


@dataclass(frozen=True)
class Traits:
    """What is the same for every study of a task.

    version: part of every trial's id; raised when training or evaluation changes. presets: names of its reference
    models. needs: study fields that must be set. uses: those of `SOME` that it reads. reads_evaluation: fields that the
    rows of evaluation.path must have, of text, images and videos; None: evaluation.path is no rows to the task, and is
    neither opened nor scanned. fewest_rows: that a pool must have for one
    step; None: a batch. can_pause: a longer trial may go on from a shorter one's state (`Job.pause`, `Job.resume`).
    suits: `djsb init` chooses the task for data with exactly these of text, images and videos. scores: name of the
    statistic that `ScoresRows.score` gives. spreads: one trial may have several devices. extras: those of djsb that
    it may need. demo: module whose `make_demo` writes a small world for it; the study is recipes/demo-TASK.yaml.
    holds_back: it judges by `Job.part`.
    """

    version: int
    presets: tuple[str, ...] = ("tiny",)
    needs: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()
    reads_evaluation: frozenset[str] | None = None
    fewest_rows: int | None = 2
    can_pause: bool = True
    suits: frozenset[str] = frozenset()
    scores: str | None = None
    spreads: bool = False
    holds_back: bool = False
    extras: tuple[str, ...] = ()
    demo: str | None = None


class Task(Protocol):
    """The contract. A task holds no state; it inherits the answers that most tasks give."""

    traits: Traits

    def lacks(self, study: Study) -> str | None:
        """What else the study must set, in one line, or None."""
        return None

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """What else its results hang on, as JSON: part of every trial's id.

        Data, model, lora, train, evaluation and the content of checkpoint and benchmarks count anyway.
        """
        return []

    def judged_by(self, study: Study, folder: Path) -> list[Judged]:
        """What else than evaluation.path it is judged by, where training rows may be compared with it; named.

        folder: the study's. Raises: DataError.
        """
        return []

    def can_shorten(self, study: Study) -> bool:
        """True when a longer trial can resume a shorter one, as the race's rungs need."""
        return True

    def medium(self, study: Study, folder: Path) -> int:
        """Bytes of one decoded image or clip of a row; 0 for a task that decodes none. folder: the study's."""
        return 0

    def kept(self, study: Study, folder: Path) -> Kept | None:
        """Bytes that a trial leaves on disk; None where that is not known. folder: the study's."""
        return None

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """What `run` returns, with directions and scales."""
        ...

    def inputs(self, study: Study, folder: Path, prepared: Path) -> list[Accounting]:
        """What it reads beside the rows, each with its accounting: benchmarks, instructions, checkpoints.

        `prepare` refuses what is not accounted for.
        """
        return []

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """Make (or find) the shared caches; their folder, `folder/.djsb/cache/NAME-DIGEST`.

        folder: the study's. evaluation: None without evaluation.path, or when it is no rows.
        Raises: StudyError, DataError in one line that names file and remedy.
        """
        ...

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train and evaluate one trial; metrics by trial, none if it was dropped.

        Writes a checkpoint to `job.output`.
        """
        ...

    def memory(self, study: Study, prepared: Path) -> dict[str, int] | None:
        """Forecast bytes on each device by what takes them; None where the task cannot tell."""
        return None

    def parameters(self, study: Study, prepared: Path) -> int | None:
        """Of its reference model; None where the task cannot tell."""
        return None

    def fitted(self, study: Study, prepared: Path) -> Study:
        """The study with the fields of `train` that it leaves open as this device's memory needs them.

        Raises: MachineError where nothing fits.
        """
        return study

    def quicker(self, study: Study, prepared: Path, alone: float, samples: int) -> Study:
        """The study with the fields of `train` that it leaves open as trials of so many samples are shortest.

        alone: seconds of a sample without them.
        """
        return study

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """(seconds per trained sample, seconds of the fixed part) measured on this device."""
        ...


@runtime_checkable
class Packing(Protocol):
    """A task that may train several trials at once in one process."""

    def can_pack(self, study: Study) -> str | None:
        """Why trials of the study cannot be trained as a pack, or None."""
        ...

    def pack(self, study: Study, prepared: Path, jobs: Sequence[Job], report: Report) -> dict[str, dict[str, float]]:
        """What `run` does, for several trials at once; metrics by trial, without those that were dropped.

        Raises: ValueError when the jobs differ in batch, steps or horizon.
        """
        ...

    def calibrate_pack(self, study: Study, prepared: Path, candidates: Sequence[int] | None = None) -> dict[int, float]:
        """Seconds per member's sample, by the members of a pack, measured on this device; 1 is `run`."""
        ...


@runtime_checkable
class Asking(Protocol):
    """A task whose models answer a prompt, so that kind `prompt` can run (Appendix E.12)."""

    def ask(self, study: Study, prepared: Path, checkpoint: Path, prompt: str) -> dict[str, float]:
        """All metrics of a trained checkpoint that is asked with another prompt; nothing is trained."""
        ...


@runtime_checkable
class Outside(Protocol):
    """A task whose training is another program: its steps cannot be timed beforehand, and it minds the clock itself.

    `calibrate` is never called, and no trial counts as hung.
    """

    def expected(self, study: Study) -> float | None:
        """Device-seconds of a trial of the common size, as the user puts it, or None."""
        ...

    def retries(self, study: Study) -> int:
        """How often a failed trial is tried again."""
        ...

    def environment(self, study: Study) -> dict[str, str]:
        """What the environment of its workers holds besides; with BARE set they load no training libraries."""
        ...


@runtime_checkable
class Remarks(Protocol):
    """A task that has something to say before anything is trained."""

    def remarks(self, study: Study, prepared: Path) -> list[str]:
        """What it leaves out and why, what it found in the data; a line each, for `djsb check`."""
        ...


@runtime_checkable
class ScoresRows(Protocol):
    """A task whose model scores single rows, for a statistic of its own (`pools.model_scores`), named in its traits."""

    traits: Traits

    def score(self, study: Study, prepared: Path, checkpoint: str) -> NDArray[np.float64]:
        """(rows,) the score of every training row by a checkpoint's folder; NaN where there is nothing to score."""
        ...


def packing(study: Study, task: Task) -> Packing | None:
    """The task, if it trains the study's trials as packs."""
    return task if isinstance(task, Packing) and task.can_pack(study) is None else None
