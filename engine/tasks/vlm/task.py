"""Task `vlm`: image-to-text in two stages (the paper's D.4, as LLaVA), judged by TextVQA, MMBench and MME.

First the pool: bare captions, by the projector alone or by the whole model. Then the fixed instructions. A race's
rung shortens the first stage; the second is the same for every trial.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.contract import Job, Progress, Report, Rows, Task, Traits
from engine.tasks.shared.training import save
from engine.tasks.vlm.benchmarks import READERS
from engine.tasks.vlm.data import prepare, shared_content
from engine.tasks.vlm.evaluation import Judge, benchmark_scores
from engine.tasks.vlm.model import KINDS, PRESETS, TOKENIZER_FILES, build_model, read_config, source_of
from engine.tasks.vlm.scores import COGNITION, PERCEPTION
from engine.tasks.vlm.text import Encoder
from engine.tasks.vlm.training import Examples, instruct, train_rows

SILENT = Report(lambda _kind, _content: None)


class VlmTask(Task):
    """See the module."""

    traits = Traits(
        version=1,
        presets=tuple(PRESETS),
        needs=("dataset.text", "dataset.images", "evaluation.benchmarks"),
        uses=frozenset({"lora", "vlm", "evaluation.benchmarks", "model.checkpoint"}),
        demo="engine.demo.questions",
    )

    def lacks(self, study: Study) -> str | None:
        """See Task."""
        if unknown := sorted(set(study.evaluation.benchmarks) - set(READERS)):
            return f"evaluation.benchmarks: {', '.join(unknown)} is unknown; {', '.join(READERS)} are read"
        if study.evaluation.path is not None:
            return "task vlm is judged by evaluation.benchmarks; leave evaluation.path out"
        return lacking_parts(study)

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """See Task."""
        return shared_content(study, folder)

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """Those of the benchmarks that the study names; the likelihoods and the parts do not count in the ranking."""
        groups = json.loads((prepared / "meta.json").read_text())["groups"]
        found: list[Metric] = []
        for name in study.evaluation.benchmarks:
            found += _mme_metrics(groups[name]) if name == "mme" else [Metric(name, True, 0, 1)]
            if name.startswith("mmbench"):
                found += [Metric(f"{name}_{part}", True, 0, 1, False) for part in ("accuracy", *groups[name])]
            found.append(Metric(f"{name}_likelihood", True, 0, 1, False))
        return found

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """See Task."""
        return prepare(study, folder, train, evaluation, workers, progress)

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train on the job's rows, then on the instructions; save the checkpoint, evaluate."""
        model = build_model(study, prepared, job.seed, job.init)
        part = "lora" if is_adapted(model) else study.vlm.trains
        if not train_rows(model, study, Examples.of(prepared, "train"), part, np.load(job.rows), job, report):
            return {}
        if not _second_stage(model, study, prepared, job, report):
            return {}
        scores = _evaluate(model, study, prepared)
        if job.output:
            save(model, Path(job.output), tokenizer_files(study, prepared))
        return {job.trial: scores}

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """Time a few steps after a warm-up; then a whole second stage and an evaluation."""
        model = build_model(study, prepared, 0, None)
        per_sample = time_steps(model, study, prepared, "lora" if is_adapted(model) else study.vlm.trains)
        began = time.perf_counter()
        _second_stage(model, study, prepared, Job("calibration", "", 0, 0, None, ""), SILENT)
        _evaluate(model, study, prepared)
        return per_sample, time.perf_counter() - began


TASK = VlmTask()


def lacking_parts(study: Study) -> str | None:
    """What tasks vlm and caption miss in the section `vlm`, in one line, or None."""
    vlm = study.vlm
    if (vlm.vision is None) != (vlm.language is None):
        return "vlm.vision and vlm.language go together: the towers that a new projector joins"
    if vlm.vision is not None and study.model.checkpoint is not None:
        return "model.checkpoint is a whole model, vlm.vision and vlm.language are parts of one; give one or the other"
    return None


def is_adapted(model: Any) -> bool:
    """True for a peft model."""
    return hasattr(model, "peft_config")


def tokenizer_files(study: Study, prepared: Path) -> list[Path]:
    """What lies beside the weights in a checkpoint."""
    return [source_of(study, prepared) / name for name in TOKENIZER_FILES]


def judge_of(model: Any, study: Study, prepared: Path) -> Judge:
    """The model, for evaluation."""
    source = source_of(study, prepared)
    meta = json.loads((prepared / "meta.json").read_text())
    encoder = Encoder.of(source, read_config(source, "model.checkpoint", KINDS))
    model.eval()
    return Judge(model, encoder, (tuple(meta["mean"]), tuple(meta["std"])))


def time_steps(model: Any, study: Study, prepared: Path, part: str) -> float:
    """Seconds per trained sample: of eight steps, after two to warm up."""
    examples = Examples.of(prepared, "train")
    batch = min(study.train.batch_size, len(examples.tokens))
    seconds = 0.0
    for steps in (2, 8):
        began = time.perf_counter()
        job = Job("calibration", "", steps * batch, 0, None, "")
        train_rows(model, study, examples, part, np.arange(batch, dtype=np.int64), job, SILENT)
        seconds = (time.perf_counter() - began) / (steps * batch)
    return seconds


def _second_stage(model: Any, study: Study, prepared: Path, job: Job, report: Report) -> bool:
    """Projector and language model on the instructions, as LLaVA does; True unless the trial was dropped."""
    if study.vlm.instructions is None:
        return True
    part = "lora" if is_adapted(model) else "language"
    return instruct(model, study, Examples.of(prepared, "instructions"), part, job, report)


def _evaluate(model: Any, study: Study, prepared: Path) -> dict[str, float]:
    """All metrics of all benchmarks."""
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
