"""What an image-to-text model answers: free text, one of the options, and how likely it finds what is right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import StudyError
from engine.tasks.shared.batches import Normal, to_pixels
from engine.tasks.shared.items import judged_items
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.procedure import autocast
from engine.tasks.vlm.model import NO_LABEL, answer_losses
from engine.tasks.vlm.native import NativeJudge
from engine.tasks.vlm.scores import circular_accuracy, mme_totals, pair_scores, soft_accuracy
from engine.tasks.vlm.talks import Originals, Pictures
from engine.tasks.vlm.text import NONE, Encoder, collate

if TYPE_CHECKING:
    import torch

ROWS = 64  # asked at once
OPEN = ("textvqa", "vqav2")  # whose answers are free text


@dataclass(frozen=True)
class Asked:
    """A question as `prepare` wrote it. image: its place in the benchmark's images."""

    image: int
    text: str
    answers: tuple[str, ...]
    options: tuple[str, ...]
    group: str
    item: str

    @property
    def named(self) -> str:
        """What it is told by: questions of one item stay together."""
        return f"{self.group} {self.item}" if self.item else f"{self.text} {self.answers}"

    @property
    def likely(self) -> str:
        """The answer that most people gave, the first of equals."""
        return max(self.answers, key=self.answers.count)


@dataclass(frozen=True)
class Judge:
    """A model with its tokenizer and image processor."""

    model: Any
    encoder: Encoder
    normal: Normal

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def _asked(self, texts: list[str], begun: Sequence[int] = ()) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, mask) of the questions up to where the answers begin, and `begun` of these; padded on the left."""
        import torch

        rows = [[*self.encoder.head, *self.encoder.question(text), *begun] for text in texts]
        width = max(map(len, rows))
        ids = np.full((len(rows), width), self.encoder.pad, np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, width - len(row) :], mask[at, width - len(row) :] = row, 1
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def generate(self, texts: list[str], images: NDArray[np.uint8], tokens: int) -> list[str]:
        """The most likely answer, token by token, of at most so many."""
        ids, mask = self._asked(texts)
        pixels = to_pixels(images, self.device, self.normal)
        with autocast(self.device):
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, pixel_values=pixels, max_new_tokens=tokens, do_sample=False,
                pad_token_id=self.encoder.pad, eos_token_id=self.encoder.end,
            )  # fmt: skip
        said = self.encoder.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in said]

    def choose(self, texts: list[str], images: NDArray[np.uint8], options: tuple[str, ...]) -> NDArray[np.float64]:
        """(texts, options) probability of each option among them, by the first token in which they differ.

        Raises: StudyError when two options have that token in common.
        """
        ids_of = [self.encoder.answer(option) for option in options]
        same = next((at for at, ids in enumerate(zip(*ids_of, strict=False)) if len(set(ids)) > 1), None)
        begun = ids_of[0][: min(map(len, ids_of)) if same is None else same]
        first = [ids[len(begun)] if len(ids) > len(begun) else self.encoder.end for ids in ids_of]
        if len(set(first)) < len(first):
            raise StudyError(f"the tokenizer begins two of the answers {', '.join(options)} alike; give another model")
        ids, mask = self._asked(texts, begun)
        pixels = to_pixels(images, self.device, self.normal)
        with autocast(self.device):
            logits = self.model(
                input_ids=ids, attention_mask=mask, pixel_values=pixels, logits_to_keep=1, use_cache=False
            ).logits[:, -1]
        found: NDArray[np.float64] = logits[:, first].double().softmax(-1).cpu().numpy()
        return found

    def likelihood(self, texts: list[str], answers: list[str], images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(texts,) geometric mean of the probabilities of an answer's tokens and of its end; 0 … 1."""
        import torch

        rows, starts = [], []
        for text, answer in zip(texts, answers, strict=True):
            asked = self.encoder.question(text)
            rows.append([*asked, *self.encoder.answer(answer), self.encoder.end])
            starts.append(len(asked))
        tokens = np.full((len(rows), max(map(len, rows))), NONE, np.int64)
        for at, row in enumerate(rows):
            tokens[at, : len(row)] = row
        made = collate(tokens, np.asarray(starts), np.asarray(self.encoder.head), self.encoder.pad)
        ids, mask, labels = (torch.from_numpy(part).to(self.device) for part in made)
        pixels = to_pixels(images, self.device, self.normal)
        with autocast(self.device):
            losses = answer_losses(self.model, ids, mask, labels, pixels)
        found: NDArray[np.float64] = (-losses.sum(1) / (labels != NO_LABEL).sum(1)).double().exp().cpu().numpy()
        return found


AnyJudge = Judge | NativeJudge


def read_questions(prepared: Path, name: str) -> tuple[list[Asked], Any]:
    """A benchmark's questions that a trial is judged on; its images: (images, side, side, 3), or `Pictures`."""
    told = json.loads((prepared / f"{name}.json").read_text(encoding="utf-8"))
    every = [Asked(**{**q, "answers": tuple(q["answers"]), "options": tuple(q["options"])}) for q in told]
    asked = [every[at] for at in judged_items([f"{name} {q.named}" for q in every])]
    file = prepared / f"{name}-images.json"
    native = file.exists() and json.loads(file.read_text(encoding="utf-8"))["medium"] == Originals.__name__
    return asked, Pictures.of_cache(prepared, name) if native else open_media(prepared, f"{name}-images")


def _in_parts(questions: list[Asked]) -> Iterator[list[Asked]]:
    """Questions to ask at once: of one set of options, and of about the same length."""
    groups: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
    for question in questions:
        groups[question.options].append(question)
    for group in groups.values():
        group.sort(key=lambda q: len(q.text))
        for at in range(0, len(group), ROWS):
            yield group[at : at + ROWS]


def benchmark_scores(judge: AnyJudge, prepared: Path, name: str, tokens: int) -> dict[str, float]:
    """The metrics of one benchmark; `..._likelihood` is the mean probability of what is right."""
    questions, images = read_questions(prepared, name)
    if name in OPEN:
        return _open_scores(judge, questions, images, tokens, name)
    right: list[tuple[Asked, bool, float]] = []
    for part in _in_parts(questions):
        chances = judge.choose([q.text for q in part], images[[q.image for q in part]], part[0].options)
        for question, chance in zip(part, chances, strict=True):
            said = question.options[int(chance.argmax())]
            right.append((question, said == question.answers[0], float(chance[_place(question)])))
    likelihood = sum(chance for _, _, chance in right) / len(right)
    if name == "mme":
        return {**_mme_scores(right), "mme_likelihood": likelihood}
    scores = {
        name: circular_accuracy((q.item, good) for q, good, _ in right),
        f"{name}_accuracy": sum(good for _, good, _ in right) / len(right),
        f"{name}_likelihood": likelihood,
    }
    for group in sorted({q.group for q in questions} - {""}):
        scores[f"{name}_{group}"] = circular_accuracy((q.item, good) for q, good, _ in right if q.group == group)
    return scores


def _place(question: Asked) -> int:
    """Where the right answer stands among the options."""
    return question.options.index(question.answers[0])


def _open_scores(judge: AnyJudge, questions: list[Asked], images: Any, tokens: int, name: str) -> dict[str, float]:
    """The soft accuracy of generated answers to a benchmark, and the likelihood of what most people answered."""
    soft, chances = [], []
    for part in _in_parts(questions):
        seen, texts = images[[q.image for q in part]], [q.text for q in part]
        said = judge.generate(texts, seen, tokens)
        soft += [soft_accuracy(text, q.answers) for text, q in zip(said, part, strict=True)]
        chances += judge.likelihood(texts, [q.likely for q in part], seen).tolist()
    return {name: sum(soft) / len(soft), f"{name}_likelihood": sum(chances) / len(chances)}


def _mme_scores(right: list[tuple[Asked, bool, float]]) -> dict[str, float]:
    """Accuracy and accuracy+ of every subtask, and the two totals."""
    groups: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for question, good, _ in right:
        groups[question.group].append((question.item, good))
    subtasks = {group: pair_scores(results) for group, results in sorted(groups.items())}
    scores = {f"mme_{side}": total for side, total in mme_totals(subtasks).items()}
    for group, (accuracy, plus) in subtasks.items():
        scores |= {f"mme_{group}_accuracy": accuracy, f"mme_{group}_accuracy_plus": plus}
    return scores
