"""Task `vlm`: image-to-text in two stages (the paper's D.4, as LLaVA), judged by TextVQA, MMBench and MME.

First the pool: bare captions, by the projector alone or by the whole model. Then the fixed instructions. A race's
rung shortens the first stage; the second is the same for every trial.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.base.paths import resolve
from engine.data.judged import Judged
from engine.records.accounting import Accounting, accounting_from_json
from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.contract import Job, Kept, Progress, Report, Rows, Traits
from engine.tasks.shared.caches import read_meta
from engine.tasks.shared.checkpoints import checkpoint_of, is_adapted, read_config, save
from engine.tasks.shared.images import Squares
from engine.tasks.shared.kept import of_preset, of_shapes, shapes_in
from engine.tasks.shared.trial import IMAGES, Training, TrainingTask
from engine.tasks.shared.weights import accounted
from engine.tasks.vlm.benchmarks import READERS, judged
from engine.tasks.vlm.chat import chat_of
from engine.tasks.vlm.data import prepare, shared_content, side_of
from engine.tasks.vlm.evaluation import AnyJudge, Judge, benchmark_scores
from engine.tasks.vlm.families import FAMILIES, family_of
from engine.tasks.vlm.model import (
    KINDS,
    LORA_TARGETS,
    PRESETS,
    TOKENIZER_FILES,
    build_model,
    is_native,
    makes_projector,
    needed_weights,
    source_of,
)
from engine.tasks.vlm.native import AT_ONCE, NativeJudge
from engine.tasks.vlm.scores import COGNITION, PERCEPTION
from engine.tasks.vlm.shell import shell
from engine.tasks.vlm.talks import Talks
from engine.tasks.vlm.text import Encoder
from engine.tasks.vlm.training import examples_of, instruct, train_rows


def train(model: Any, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train on the pool's captions: adapters, what `vlm.trains` says, or in task caption all. False when dropped."""
    part = "lora" if is_adapted(model) else study.vlm.trains if study.task == "vlm" else "all"
    return train_rows(model, study, examples_of(study, prepared, "train"), part, rows, job, report)


def judge_of(model: Any, study: Study, prepared: Path) -> AnyJudge:
    """The model with its tokenizer and image processor."""
    source, meta = source_of(study, prepared), read_meta(prepared)
    if is_native(study, prepared.parents[2]):
        return NativeJudge(model.eval(), chat_of(source), study.train.micro_batch or AT_ONCE)
    encoder = Encoder.of(source, read_config(source, "model.checkpoint", KINDS))
    return Judge(model.eval(), encoder, (tuple(meta["mean"]), tuple(meta["std"])))


def sample(study: Study, prepared: Path) -> tuple[NDArray[np.int64], float]:
    """A batch of rows to time, and what a step takes of them."""
    if not is_native(study, prepared.parents[2]):
        return IMAGES(study, prepared)
    rows = Talks(prepared, "train").there(study.train.batch_size)
    return rows, len(rows)


def save_model(model: Any, study: Study, prepared: Path, folder: Path) -> None:
    """The model or its adapters, with the tokenizer."""
    save(model, folder, [source_of(study, prepared) / name for name in TOKENIZER_FILES])


def finish(model: Any, study: Study, prepared: Path, job: Job, report: Report) -> bool:
    """The second stage: projector and language model on the instructions, as LLaVA does."""
    if study.vlm.instructions is None:
        return True
    part = "lora" if is_adapted(model) else "language"
    return instruct(model, study, examples_of(study, prepared, "instructions"), part, job, report)


def evaluate(model: Any, study: Study, prepared: Path) -> dict[str, float]:
    """The scores of all benchmarks."""
    import torch

    judge = judge_of(model, study, prepared)
    scores: dict[str, float] = {}
    with torch.inference_mode():
        for name in study.evaluation.benchmarks:
            scores |= benchmark_scores(judge, prepared, name, study.vlm.answer_tokens)
    return scores


def _mme_metrics(groups: list[str]) -> list[Metric]:
    """The totals that the subtasks add up to, 200 each, and the subtasks' accuracies."""
    found = []
    for side, names in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if count := len(set(groups) & set(names)):
            found.append(Metric(f"mme_{side}", True, 0, 200 * count))
    for group in groups:
        found += [Metric(f"mme_{group}_{kind}", True, 0, 1, False) for kind in ("accuracy", "accuracy_plus")]
    return found


class ImageToText(TrainingTask, Protocol):
    """What tasks vlm and caption have in common."""

    def lacks(self, study: Study) -> str | None:
        """Parts of a model that go together."""
        vlm = study.vlm
        if (vlm.vision is None) != (vlm.language is None):
            return "vlm.vision and vlm.language go together: the towers that a new projector joins"
        if vlm.vision_high is not None and vlm.vision is None:
            return "vlm.vision_high goes with vlm.vision and vlm.language: the parts of a Mini-Gemini"
        if vlm.vision is not None and study.model.checkpoint is not None:
            return (
                "model.checkpoint is a whole model, vlm.vision and vlm.language are parts of one; give one or the other"
            )
        return None

    def kept(self, study: Study, folder: Path) -> Kept | None:
        """See Task."""
        if not (parts := needed_weights(study, folder)):
            return of_preset("vlm", study)
        own = checkpoint_of(study, folder)
        family = family_of(read_config(own, "model.checkpoint", KINDS)) if own else FAMILIES["llava"]
        words = (*family.projector, *(family.language if study.vlm.instructions else ()))
        trained = words if makes_projector(study) else ("",)
        shapes = shapes_in(*(part.folder for part in parts))
        return of_shapes(shapes, study, trained, study.lora.targets or LORA_TARGETS)

    def medium(self, study: Study, folder: Path) -> int:
        """See Task."""
        return 0 if is_native(study, folder) else math.prod(Squares(side_of(study, folder)).shape)

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """The section `vlm`, and what its paths hold."""
        return shared_content(study, folder)

    def inputs(self, study: Study, folder: Path, prepared: Path) -> list[Accounting]:
        """Benchmarks and instructions, and the tensors of the models that the study names."""
        read = [accounting_from_json(content) for content in read_meta(prepared)["inputs"]]
        return [*read, *accounted(folder, needed_weights(study, folder))]

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """Base model, images, token ids and questions."""
        return prepare(study, folder, train, evaluation, workers, progress)


class VlmTask(ImageToText):
    """See the module."""

    traits = Traits(
        holds_back=True,
        version=1,
        presets=tuple(PRESETS),
        spreads=True,
        extras=("vlm",),
        needs=("dataset.text", "dataset.images", "evaluation.benchmarks"),
        uses=frozenset({"lora", "vlm", "evaluation.benchmarks", "model.checkpoint"}),
        demo="engine.demo.questions",
    )
    training = Training(build_model, train, evaluate, save_model, finish, sample, shell=shell)

    def lacks(self, study: Study) -> str | None:
        """Benchmarks that are known, and no evaluation beside them."""
        if unknown := sorted(set(study.evaluation.benchmarks) - set(READERS)):
            return f"evaluation.benchmarks: {', '.join(unknown)} is unknown; {', '.join(READERS)} are read"
        if study.evaluation.path is not None:
            return "task vlm is judged by evaluation.benchmarks; leave evaluation.path out"
        return super().lacks(study)

    def judged_by(self, study: Study, folder: Path) -> list[Judged]:
        """The images of each benchmark."""
        paths = study.evaluation.benchmarks.items()
        return [judged(name, resolve(folder, path), study.dataset.max_bad) for name, path in paths]

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """Those of the benchmarks that the study names; the likelihoods and the parts do not count in the ranking."""
        groups = read_meta(prepared)["groups"]
        found: list[Metric] = []
        for name in study.evaluation.benchmarks:
            found += _mme_metrics(groups[name]) if name == "mme" else [Metric(name, True, 0, 1)]
            if name.startswith("mmbench"):
                found += [Metric(f"{name}_{part}", True, 0, 1, False) for part in ("accuracy", *groups[name])]
            found.append(Metric(f"{name}_likelihood", True, 0, 1, False))
        return found


TASK = VlmTask()
