"""Task `caption`: fine-tuning for captions (the paper's E.1, its InternVL scenario), by LoRA or of the whole model.

The pool's captions are answers to one prompt. Judged on held-out images with one or more captions each: what the
model says by BLEU, ROUGE-L and CIDEr, and by how likely it finds the captions, which is less noisy on small models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.caption.scores import CIDER_MOST, caption_names, caption_scores, java_problem
from engine.tasks.contract import Traits
from engine.tasks.shared.trial import Training
from engine.tasks.vlm.evaluation import ROWS, read_questions
from engine.tasks.vlm.model import PRESETS, build_model
from engine.tasks.vlm.shell import shell
from engine.tasks.vlm.task import ImageToText, judge_of, sample, save_model, train


def evaluate(model: Any, study: Study, prepared: Path) -> dict[str, float]:
    """The scores of what it says to the study's prompt on the evaluation images, and the likelihood of captions."""
    import torch

    judge = judge_of(model, study, prepared)
    prompt = study.vlm.prompt
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


class CaptionTask(ImageToText):
    """See the module."""

    traits = Traits(
        holds_back=True,
        version=1,
        presets=tuple(PRESETS),
        spreads=True,
        extras=("vlm",),
        needs=("dataset.text", "dataset.images", "evaluation.path"),
        uses=frozenset({"lora", "vlm", "model.checkpoint"}),
        reads_evaluation=frozenset({"images", "text"}),
        demo="engine.demo.questions",
    )
    training = Training(build_model, train, evaluate, save_model, sample=sample, shell=shell)

    def lacks(self, study: Study) -> str | None:
        """Java, where it is asked for."""
        return (java_problem() if study.vlm.java else None) or super().lacks(study)

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """The scores of what it says; the likelihood of what people said does not count unless the study names it."""
        scales = {"cider": CIDER_MOST}
        names = caption_names(study.vlm.java)
        found = [Metric(name, True, 0, scales.get(name.split("_")[0], 1)) for name in names]
        return [*found, Metric("likelihood", True, 0, 1, False)]

    def ask(self, study: Study, prepared: Path, checkpoint: Path, prompt: str) -> dict[str, float]:
        """See Asking."""
        other = study.model_copy(update={"vlm": study.vlm.model_copy(update={"prompt": prompt})})
        return evaluate(build_model(study, prepared, study.seed, str(checkpoint)), other, prepared)


TASK = CaptionTask()
