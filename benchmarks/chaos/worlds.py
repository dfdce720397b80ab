"""The studies that are hurt: short ones of three tasks, each made anew in a folder of its own."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from engine.demo.text import clean_text, facts, questions

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "data" / "old_study"
Row = dict[str, Any]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220)}
WORDS = ["photo", "small", "picture", "bright", "of", "the", "with", "dark", "nice", "old", "shiny", "corner"]
BASE: Row = {
    "budget": "2h",
    "dataset": {"path": "rows.jsonl", "text": "text", "id": "id"},
    "train": {"epochs": 1, "batch_size": 16, "keep_checkpoints": 1},
    "search": {"strategy": "race", "top": 2, "seeds": 2, "rungs": [[0.5, 1], [1.0, 1], [1.0, 2]]},
    "combine": {"top": 2, "clusters": 0, "max": 2},
    "scale": {"rates": [2], "recipes": 1, "seeds": 1},
    "confirm": {"candidates": 1, "seeds": 2},
    "ops": {"text_length_filter": {}, "words_num_filter": {}, "special_characters_filter": {}},
}
TRAINER = """
import json, random, sys, time
from pathlib import Path

pool, init, seed, out, samples = sys.argv[1:6]
rows = [json.loads(line) for line in open(pool)]
words = sum(len(row["text"].split()) for row in rows) / len(rows)
for step in (1, 2, 3):
    print(json.dumps({"step": step, "total": 3, "loss": words / step}), flush=True)
    time.sleep(0.15)
score = 0.7 - 0.02 * words + int(samples) / 50000 + random.Random(seed + str(rows[0])).uniform(0, 0.01)
Path(out, "model.txt").write_text(f"{words} {init}")
Path(out, "metrics.jsonl").write_text(json.dumps({"score": score}) + chr(10))
"""


def _write(folder: Path, settings: Row, rows: list[Row], test: list[Row] | None = None) -> Path:
    """A study's folder with its data."""
    folder.mkdir(parents=True)
    for name, some in (("rows.jsonl", rows), ("test.jsonl", test)):
        if some is not None:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    study = {**BASE, "name": folder.name, **settings}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return folder


def _caption(draw: random.Random, colour: str = "red") -> str:
    return " ".join([colour, *draw.choices(WORDS, k=draw.randint(1, 12))])


def command(folder: Path) -> Path:
    """A trainer of one's own: half a second a trial."""
    draw = random.Random(0)
    rows: list[Row] = [{"id": i, "text": _caption(draw)} for i in range(3000)]
    run = [sys.executable, "trainer.py", "{pool}", "{init}", "{seed}", "{out}", "{samples}"]
    metrics = [{"name": "score", "low": 0, "high": 1}]
    _write(folder, {"task": "command", "command": {"run": run, "metrics": metrics}}, rows)
    (folder / "trainer.py").write_text(TRAINER, encoding="utf-8")
    return folder


def lm(folder: Path) -> Path:
    """A language model of text about towns."""
    import numpy as np

    towns, rng = facts(0)[:3], np.random.default_rng(0)
    rows, test = ([{"id": i, "text": clean_text(towns[i % 3], rng)} for i in range(n)] for n in (600, 20))
    settings = {
        "task": "lm",
        "evaluation": {"path": "test.jsonl", "benchmarks": {"facts": "facts.jsonl"}},
        "model": {"preset": "tiny"},
        "train": {**BASE["train"], "batch_size": 8, "learning_rate": 0.006},
        "ops": {"text_length_filter": {}, "words_num_filter": {}},
    }
    _write(folder, settings, rows, test)
    quiz = "".join(json.dumps(q) + "\n" for q in questions(towns, 0))
    (folder / "facts.jsonl").write_text(quiz, encoding="utf-8")
    return folder


def clip(folder: Path) -> Path:
    """Images of three colours with captions, trained with micro-batches."""
    draw = random.Random(0)

    def rows(n: int, part: str) -> list[Row]:
        made: list[Row] = []
        (folder / part).mkdir(parents=True)
        for i in range(n):
            colour = list(COLOURS)[i % 3]
            noise = bytes(min(255, max(0, c + draw.randint(-30, 30))) for _ in range(256) for c in COLOURS[colour])
            Image.frombytes("RGB", (16, 16), noise).save(folder / part / f"{i}.png")
            text = _caption(draw, colour)
            made.append({"id": i, "text": text, "images": [f"{part}/{i}.png"], "label": colour})
        return made

    train, test = rows(480, "train"), rows(60, "eval")
    scratch = folder.with_name(folder.name + "-images")
    folder.rename(scratch)
    settings = {
        "task": "clip",
        "dataset": {**BASE["dataset"], "images": "images"},
        "evaluation": {"path": "test.jsonl", "label": "label"},
        "model": {"preset": "tiny"},
        "train": {**BASE["train"], "micro_batch": 8},
        "ops": {"text_length_filter": {}, "words_num_filter": {}},
    }
    _write(folder, settings, train, test)
    for part in scratch.iterdir():
        part.rename(folder / part.name)
    scratch.rmdir()
    return folder


def old(folder: Path) -> Path:
    """A study whose database an earlier revision wrote."""
    (folder / ".djsb").mkdir(parents=True)
    for name in ("study.yaml", "trainer.py", "rows.jsonl", "other.jsonl"):
        shutil.copy(OLD / name, folder / name)
    (folder / ".djsb" / "study.db").write_bytes(gzip.decompress((OLD / "study.db.gz").read_bytes()))
    return folder


WORLDS: dict[str, Callable[[Path], Path]] = {"command": command, "lm": lm, "clip": clip}
