"""The demo world of task `lm`: texts about the shapes that stand in towns, with defects as on the web.

    make_demo(Path("demo"))     # 4000 training rows, 200 test rows, 24 questions, a second, no download

Every town has one shape of one colour, size and material; these facts are drawn once, from the seed. A training row is
two to four sentences about one town, with each of the defects of DEFECTS drawn on its own, so that about 44 % of the
rows are clean. The test rows are clean, and the questions ask for the facts: what a model learns is judged by the
perplexity of the first and by the likelihood of the right choice of the second.

Defects: boilerplate (menus, shop words and buttons of web pages among sentences about any town, made up, so mostly
false; the text is lost in 80 %), repeated (its first sentence or a made-up phrase, many times), truncated (its first
two to five words), shuffled (its words in another order), wrong (another colour, shape, size and material; fluent, and
no statistic of the text shows it).

What is right to find, if the method works (low, mid and high are the thirds of a statistic's values):
- special_characters_filter: high hurts most (boilerplate), mid helps; alphanumeric_filter is its mirror image: low
  hurts most, mid helps.
- text_length_filter, words_num_filter: high hurts (boilerplate, repetition); low says little, but nothing false.
- word_repetition_filter, character_repetition_filter: high hurts (repeated).
- Shuffled and wrong rows lie in every third of every statistic; they cap what a recipe of these can reach.
This text is for people: no code reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.demo.files import DemoFiles, Line, Rng, build, drawn, pick, write_lines, write_rows
from engine.demo.images import COLOURS, SEPARATORS, SHAPES, SHOP_WORDS

VERSION = 1  # raised whenever the same arguments give other bytes than before
TOWNS = tuple(a + b for a in ("Ar", "Bel", "Cor", "Dun") for b in ("len", "mar"))
SIZES = ("small", "tall", "huge", "tiny")
MATERIALS = ("stone", "wood", "glass", "iron")
# defect → its probability; they are drawn independently and applied from the last to the first
DEFECTS = {"boilerplate": 0.32, "repeated": 0.14, "truncated": 0.14, "shuffled": 0.06, "wrong": 0.06}
SENTENCES = (
    "The {shape} of {town} is {colour}.",
    "The {shape} of {town} is made of {material}.",
    "In {town} stands a {size} {colour} {shape}.",
    "People in {town} like their {size} {shape} of {material}.",
    "Whoever visits {town} comes to see the {colour} {shape}.",
    "The town of {town} is known for a {shape}, which is {size} and made of {material}.",
    "Long ago the people of {town} built a {size} {shape} and painted it {colour}.",
)
QUESTIONS = (
    ("The {shape} of {town} is", "colour"),
    ("The {shape} of {town} is made of", "material"),
    ("The town of {town} is known for a", "shape"),
)
CHOICES = {"colour": tuple(COLOURS), "material": MATERIALS, "shape": SHAPES, "size": SIZES}
BUTTONS = ("Home", "About us", "Contact", "Login", "Cookies: accept all", "© 2024", "Terms & conditions", "Share »")
_TRAIN, _TEST, _WORLD, _ASK = range(4)


@dataclass(frozen=True)
class Town:
    """A town and the facts of its shape."""

    town: str
    shape: str
    colour: str
    size: str
    material: str


def make_demo(folder: Path, rows: int = 4000, test_rows: int = 200, seed: int = 0) -> DemoFiles:
    """Write the demo into `folder`, or reuse the one of the same arguments that is there; see `files.build`.

    Beside train, test and truth lies questions.jsonl: {"question", "choices", "answer"} of every town.
    """

    def write(draft: Path) -> None:
        towns = facts(seed)

        def row(_: int, rng: Rng) -> tuple[Line, Line]:
            town = pick(rng, towns)
            text, defects = web_text(town, rng)
            return {"text": text}, {"town": town.town, "defects": defects}

        def clean(number: int, rng: Rng) -> tuple[Line]:
            return ({"text": clean_text(towns[number % len(towns)], rng)},)

        write_rows(draft, rows, (seed, _TRAIN), row, "train.jsonl", "truth.jsonl")
        write_rows(draft, test_rows, (seed, _TEST), clean, "test.jsonl")
        write_lines(draft / "questions.jsonl", questions(towns, seed))

    arguments = {"world": "text", "version": VERSION, "rows": rows, "test_rows": test_rows, "seed": seed}
    return build(folder, arguments, write, ["questions.jsonl"])


def facts(seed: int) -> list[Town]:
    """The towns, and what stands in each."""
    rng = np.random.default_rng((seed, _WORLD))
    return [_town(town, rng) for town in TOWNS]


def _town(name: str, rng: Rng) -> Town:
    """A town with facts by chance."""
    return Town(name, pick(rng, SHAPES), pick(rng, tuple(COLOURS)), pick(rng, SIZES), pick(rng, MATERIALS))


def questions(towns: list[Town], seed: int) -> list[dict[str, Any]]:
    """Every town's questions, each with its choices in an order of its own."""
    rng = np.random.default_rng((seed, _ASK))
    found = []
    for town in towns:
        for asked, about in QUESTIONS:
            choices = [str(c) for c in rng.permutation(CHOICES[about])]
            right = choices.index(getattr(town, about))
            found.append({"question": asked.format(**vars(town)), "choices": choices, "answer": right})
    return found


def clean_text(town: Town, rng: Rng) -> str:
    """Two to four different sentences about the town."""
    chosen = rng.permutation(len(SENTENCES))[: int(rng.integers(2, 5))]
    return " ".join(SENTENCES[i].format(**vars(town)) for i in chosen.tolist())


def web_text(town: Town, rng: Rng) -> tuple[str, list[str]]:
    """A text as the web has it, and its defects."""
    defects = drawn(DEFECTS, rng)
    if "wrong" in defects:
        others = {name: pick(rng, [c for c in CHOICES[name] if c != getattr(town, name)]) for name in CHOICES}
        town = Town(town.town, **others)
    text = clean_text(town, rng)
    if "shuffled" in defects:
        text = " ".join(str(w) for w in rng.permutation(text.split()))
    if "truncated" in defects:
        text = " ".join(text.split()[: int(rng.integers(2, 6))])
    if "repeated" in defects:
        text = repeated(text, rng)
    if "boilerplate" in defects:
        text = boilerplate(text, rng)
    return text, defects


def rumour(rng: Rng) -> str:
    """A town with a shape and a colour that are anybody's guess, as a shop would write it."""
    return f"{pick(rng, TOWNS)} {pick(rng, tuple(COLOURS))} {pick(rng, SHAPES)}"


def repeated(text: str, rng: Rng) -> str:
    """Many times one phrase: the text's first sentence (40 %) or a rumour."""
    phrase = text.split(". ")[0] if rng.random() < 0.4 else f"The {rumour(rng)}"
    return " ".join([phrase] * int(rng.integers(5, 10)))


def boilerplate(text: str, rng: Rng) -> str:
    """Buttons, shop words and sentences about any town; the text is lost (80 %) or stands among them."""
    separator = pick(rng, SEPARATORS)
    words = [pick(rng, BUTTONS if rng.random() < 0.5 else SHOP_WORDS) for _ in range(int(rng.integers(6, 13)))]
    for _ in range(int(rng.integers(2, 5))):
        false = _town(pick(rng, TOWNS), rng)
        words.insert(int(rng.integers(len(words) + 1)), pick(rng, SENTENCES).format(**vars(false)))
    if rng.random() > 0.8:
        words.insert(int(rng.integers(len(words) + 1)), text)
    return separator.join(words)
