"""Multiple choice by likelihood: the files of evaluation.benchmarks for task `lm`, and what they measure.

A file is JSON lines, or a list, of questions: {"question": …, "choices": [two or more texts], "answer": …}. `context`
may stand before the question or in its place. The answer is the place of the right choice from 0, its letter (A is the
first), or its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError
from engine.data.fingerprints import content_hash
from engine.data.judged import LONG, Item, Judged, Listed
from engine.data.readers.contract import BROKEN, Row
from engine.data.readers.json_rows import entries
from engine.data.sift import MAX_BAD, Sifted, Unusable, sift
from engine.tasks.shared.items import judged_items

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """stem: what stands before the choices. answer: place of the right one."""

    stem: str
    choices: tuple[str, ...]
    answer: int


def read_questions(name: str, file: Path, max_bad: float = MAX_BAD) -> Sifted[Question]:
    """All questions of a file, without bad ones up to the limit. name: as the study calls it.

    Raises: DataError that names the file and the line.
    """
    found = sift(f"benchmark {name}", "questions", entries(file), _question, max_bad)
    if not found:
        raise DataError(f"{file} has no questions; give one JSON object a line: question, choices, answer")
    return found


def _question(_: str, row: Row) -> Question:
    """One line as a question. Raises: Unusable that says what is wrong with it."""
    if BROKEN in row:
        raise Unusable("not a JSON object", str(row[BROKEN]))
    parts = [row[name] for name in ("context", "question") if row.get(name)]
    if not parts or any(not isinstance(p, str) for p in parts):
        raise Unusable("no question", "it needs question or context, a text")
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or any(not isinstance(c, str) or not c for c in choices):
        raise Unusable("no choices", "choices must be two or more texts")
    if isinstance(answer, str):
        if answer in choices:
            answer = choices.index(answer)
        elif len(answer) == 1 and answer.upper() in LETTERS:
            answer = LETTERS.index(answer.upper())
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        told = f"answer {str(row.get('answer'))[:100]!r} is none of its {len(choices)} choices"
        raise Unusable("no such answer", told)
    return Question("\n".join(parts), tuple(choices), answer)


def judged(name: str, file: Path, max_bad: float) -> Judged:
    """The file's questions, to be compared with training rows: each with its right answer, a long one alone, too."""

    def read() -> list[Item]:
        questions = enumerate(read_questions(name, file, max_bad), 1)
        return [Item(f"question {number}", tuple(_texts(question))) for number, question in questions]

    return Judged(name, "questions", "text", Listed(content_hash(file), read), within=True)


def _texts(question: Question) -> Iterator[str]:
    yield f"{question.stem} {question.choices[question.answer]}"
    if len(question.stem.split()) >= LONG:
        yield question.stem


def encode_questions(
    questions: Sequence[Question], encode: Callable[[list[str]], list[list[int]]], first: int, length: int
) -> dict[str, NDArray[Any]]:
    """The arrays that `measure` reads; one entry a choice.

    encode: texts to token ids. first: the token before every text. length: tokens that the model takes; longer contexts
    lose their beginning.
    Entries: `ids` (choices, longest) and `sizes`, `starts` of the choice's own tokens, `bytes` of its text, `question`,
    `right`.
    """
    contexts = encode([q.stem for q in questions])
    wholes = encode([f"{q.stem} {choice}" for q in questions for choice in q.choices])
    texts: list[list[int]] = []
    starts, sizes, owner, right = [], [], [], []
    for number, (question, context) in enumerate(zip(questions, contexts, strict=True)):
        for place, choice in enumerate(question.choices):
            whole = wholes[len(texts)]
            at = min(_common(context, whole), len(whole) - 1)
            text = [first, *whole]
            cut = max(0, len(text) - length)
            texts.append(text[cut:])
            starts.append(max(1, at + 1 - cut))
            sizes.append(len(f" {choice}".encode()))
            owner.append(number)
            right.append(place == question.answer)
    ids = np.zeros((len(texts), max(map(len, texts))), np.int32)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return {
        "ids": ids, "sizes": np.array([len(t) for t in texts]), "starts": np.array(starts), "bytes": np.array(sizes),
        "question": np.array(owner), "right": np.array(right),
    }  # fmt: skip


def _common(before: Sequence[int], whole: Sequence[int]) -> int:
    """Tokens that a context and the context with a choice begin with alike."""
    pairs = zip(before, whole, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(whole)))


def judged_questions(name: str, saved: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of the questions that a trial is judged on. name: of the file."""
    sizes, owners = saved["sizes"].tolist(), saved["question"].tolist()
    texts = [""] * (1 + max(owners))
    for row, size, owner in zip(saved["ids"], sizes, owners, strict=True):
        texts[owner] += f" {row[:size].tolist()}"
    kept = judged_items([f"{name}{text}" for text in texts])
    mine = np.isin(saved["question"], kept)
    return {**{key: array[mine] for key, array in saved.items()},
            "question": np.searchsorted(kept, saved["question"][mine])}  # fmt: skip


def measure(name: str, found: NDArray[np.float64], saved: dict[str, NDArray[Any]]) -> dict[str, float]:
    """The metrics of one file from each choice's log-likelihood in nats.

    accuracy: share of questions whose right choice is the most likely; accuracy_norm: the most likely per byte of its
    text; likelihood: mean probability of the right choice among the choices. Ties count against the right choice.
    """
    accuracy, norm, likelihood = [], [], []
    for number in range(int(saved["question"].max()) + 1):
        mine = saved["question"] == number
        scores, right = found[mine], saved["right"][mine]
        each = scores / saved["bytes"][mine]
        accuracy.append(scores[right].max() > scores[~right].max())
        norm.append(each[right].max() > each[~right].max())
        odds = np.exp(scores - scores.max())
        likelihood.append(float(odds[right].sum() / odds.sum()))
    return {
        f"{name}_accuracy": float(np.mean(accuracy)),
        f"{name}_accuracy_norm": float(np.mean(norm)),
        f"{name}_likelihood": float(np.mean(likelihood)),
    }
