"""The scores of TextVQA, MMBench and MME, as their authors define them: pure functions of answers.

What a model answered comes from evaluation.py, what is right from benchmarks.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
FULL = 3  # annotators that must agree with an answer for the full point
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = "none zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
_NUMBERS = {word: str(max(0, at - 1)) for at, word in enumerate(_NUMBER_WORDS)}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_THOUSANDS = re.compile(r"(?<=\d),+(?=\d)")
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905

# the official table: every form that lacks exactly one of its apostrophes; and its one entry the other way round
_CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED for at, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}


def normalise_answer(text: str) -> str:
    """The answer as TextVQA's official evaluation compares it (VQA, Antol et al. 2015, and its possessive rule)."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    found = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_space or _THOUSANDS.search(text) else " ")
    found = _PERIOD.sub("", found, count=32)  # the official code passes a flag where the count stands
    words = [_NUMBERS.get(word, word) for word in found.split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean of min(1, matches / 3) over all ways to leave one of the annotators' answers out; 0 … 1.

    Raises: ValueError with fewer than two answers.
    """
    if len(answers) < 2:
        raise ValueError(f"soft accuracy leaves one answer out of {len(answers)}; give at least two, as TextVQA's ten")
    wanted = normalise_answer(prediction)
    match = [normalise_answer(answer) == wanted for answer in answers]
    return sum(min(1.0, (sum(match) - own) / FULL) for own in match) / len(match)


def circular_accuracy(results: Iterable[tuple[str, bool]]) -> float:
    """MMBench's CircularEval: the share of questions that are right in every rotation of their options; 0 … 1.

    results: (question, right) of every rotation.
    """
    right: dict[str, bool] = {}
    for question, good in results:
        right[question] = right.get(question, True) and good
    return sum(right.values()) / len(right)


def pair_scores(results: Iterable[tuple[str, bool]]) -> tuple[float, float]:
    """MME's accuracy (share of questions that are right) and accuracy+ (of images whose two are), each 0 … 1.

    results: (image, right) of every question. Raises: ValueError if an image has not two.
    """
    images: dict[str, list[bool]] = defaultdict(list)
    for image, good in results:
        images[image].append(good)
    for image, answers in images.items():
        if len(answers) != 2:
            raise ValueError(f"image {image} has {len(answers)} questions; MME asks two an image")
    questions = [good for answers in images.values() for good in answers]
    return sum(questions) / len(questions), sum(all(answers) for answers in images.values()) / len(images)


def mme_totals(subtasks: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """MME's totals from each subtask's (accuracy, accuracy+): sums of 100·(accuracy + accuracy+).

    Perception is 0 … 2000 with all its ten subtasks, cognition 0 … 800 with its four; a side without a subtask is left
    out.
    """
    scores = {name: 100 * (accuracy + plus) for name, (accuracy, plus) in subtasks.items()}
    totals = {}
    for side, names in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if found := [scores[name] for name in names if name in scores]:
            totals[side] = sum(found)
    return totals
