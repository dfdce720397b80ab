"""Task `caption`: fine-tuning for captions (the paper's E.1, its InternVL scenario), by LoRA or of the whole model.

The pool's captions are answers to one prompt. Judged on held-out images with one or more captions each: what the
model says by BLEU, ROUGE-L and CIDEr, and by how likely it finds the captions, which is less noisy on small models.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.caption.scores import CIDER_MOST, caption_names, caption_scores, java_problem
from engine.tasks.contract import Job, Progress, Report, Rows, Task, Traits
from engine.tasks.shared.training import save
from engine.tasks.vlm.data import prepare, shared_content
from engine.tasks.vlm.evaluation import ROWS, Judge, read_questions
from engine.tasks.vlm.model import PRESETS, build_model
from engine.tasks.vlm.task import is_adapted, judge_of, lacking_parts, time_steps, tokenizer_files
from engine.tasks.vlm.training import Examples, train_rows


class CaptionTask(Task):
    """See the module."""

    traits = Traits(
        version=1,
        runs=frozenset({"combine", "bucket", "repeat", "seeds", "mapper", "prompt"}),
        presets=tuple(PRESETS),
        needs=("dataset.text", "dataset.images", "evaluation.path"),
        uses=frozenset({"lora", "vlm", "model.checkpoint"}),
        reads_evaluation=frozenset({"images", "text"}),
        demo="engine.demo.questions",
    )

    def lacks(self, study: Study) -> str | None:
        """See Task."""
        return (java_problem() if study.vlm.java else None) or lacking_parts(study)

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """See Task."""
        return shared_content(study, folder)

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """The scores of what it says; the likelihood of what people said does not count unless the study names it."""
        scales = {"cider": CIDER_MOST}
        names = caption_names(study.vlm.java)
        found = [Metric(name, True, 0, scales.get(name.split("_")[0], 1)) for name in names]
        return [*found, Metric("likelihood", True, 0, 1, False)]

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """See Task."""
        return prepare(study, folder, train, evaluation, workers, progress)

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train on the job's rows, save the checkpoint, evaluate."""
        model = build_model(study, prepared, job.seed, job.init)
        part = "lora" if is_adapted(model) else "all"
        if not train_rows(model, study, Examples.of(prepared, "train"), part, np.load(job.rows), job, report):
            return {}
        scores = judged(judge_of(model, study, prepared), study, prepared, study.vlm.prompt)
        if job.output:
            save(model, Path(job.output), tokenizer_files(study, prepared))
        return {job.trial: scores}

    def ask(self, study: Study, prepared: Path, checkpoint: Path, prompt: str) -> dict[str, float]:
        """See Asking."""
        model = build_model(study, prepared, study.seed, str(checkpoint))
        return judged(judge_of(model, study, prepared), study, prepared, prompt)

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """Time a few steps after a warm-up, and one evaluation."""
        model = build_model(study, prepared, 0, None)
        per_sample = time_steps(model, study, prepared, "lora" if is_adapted(model) else "all")
        began = time.perf_counter()
        judged(judge_of(model, study, prepared), study, prepared, study.vlm.prompt)
        return per_sample, time.perf_counter() - began


TASK = CaptionTask()


def judged(judge: Judge, study: Study, prepared: Path, prompt: str) -> dict[str, float]:
    """All metrics of a model that is asked for captions by a prompt, on the evaluation images."""
    import torch

    questions, images = read_questions(prepared, "caption")
    said: list[str] = []
    pairs = [(question, text) for question in questions for text in question.answers]
    chances: list[float] = []
    with torch.inference_mode():
        for at in range(0, len(questions), ROWS):
            part = questions[at : at + ROWS]
            said += judge.generate([prompt] * len(part), images[[q.image for q in part]], study.vlm.answer_tokens)
        for at in range(0, len(pairs), ROWS):
            some = pairs[at : at + ROWS]
            seen = images[[question.image for question, _ in some]]
            chances += judge.likelihood([prompt] * len(some), [text for _, text in some], seen).tolist()
    scores = caption_scores(said, [question.answers for question in questions], study.vlm.java)
    return {**scores, "likelihood": sum(chances) / len(chances)}
