"""The demo world of tasks `vlm` and `caption`: the shapes of engine/demo/images.py, with questions and answers.

    make_demo(Path("demo"))     # 2400 training rows, 160 instruction images, 96 test images, no download

The training rows are those of the world of task `clip`, defects and all: web captions of one shape on a background.
What it says there on what is right to find holds here too, as a model that learns to say what a caption says suffers
from the same defects: long spam and repetition hurt most (text_length_filter, words_num_filter: high), special
characters come with spam and file names (special_characters_filter: high hurts; alphanumeric_filter: low hurts), and
images matter little.
Beside them lie, clean and right:
- instructions.jsonl: {"image", "question", "answer"}, the fixed set of the second stage;
- test.jsonl: {"id", "text", "images"}, REFERENCES captions of each test image, for task caption;
- textvqa.json, mmbench.tsv and mme/: questions about the test images in the formats of those benchmarks.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.demo import images as world
from engine.demo.files import DemoFiles, Rng, build, pick, write_lines

VERSION = 1  # raised whenever the same arguments give other bytes than before
ROWS, INSTRUCTED, TESTED, REFERENCES = 2400, 160, 96, 3
_INSTRUCTIONS, _QUESTIONS = 2, 3
SHORT = "\nAnswer the question using a single word or phrase."
CHOOSE = "\nAnswer with the option's letter from the given choices directly."
YES_NO = " Please answer yes or no."
ASK = {
    "colour": "What is the colour of the shape?",
    "shape": "What is the shape?",
    "background": "What is the background like?",
}
OPTIONS = {"colour": tuple(world.COLOURS), "shape": world.SHAPES, "background": world.BACKGROUNDS}


def make_demo(folder: Path, rows: int = ROWS, seed: int = 0) -> DemoFiles:
    """Write the demo into `folder`, or reuse the one of the same arguments that is there; see `files.build`."""

    def write(draft: Path) -> None:
        world.write_train(draft, rows, seed)
        (draft / "images" / "test").mkdir(parents=True)
        (draft / "images" / "instructions").mkdir(parents=True)
        _write_instructions(draft, seed)
        scenes = _write_test(draft, seed)
        _write_textvqa(draft / "textvqa.json", scenes, seed)
        _write_mmbench(draft / "mmbench.tsv", scenes, seed)
        _write_mme(draft / "mme", scenes, seed)

    arguments = {"world": "questions", "version": VERSION, "rows": rows, "seed": seed}
    return build(folder, arguments, write, ["instructions.jsonl", "textvqa.json", "mmbench.tsv", "mme", "images"])


Scenes = list[tuple[str, world.Scene]]


def right(scene: world.Scene, kind: str) -> str:
    """The answer to `ASK[kind]`."""
    return str(getattr(scene, kind))


def _scenes(folder: Path, name: str, count: int, stream: int, seed: int) -> Iterator[tuple[str, world.Scene, Rng]]:
    """(path of the image in the demo, scene, generator) of balanced clean scenes, whose images are written."""
    for row in range(count):
        rng = np.random.default_rng((seed, stream, row))
        scene = world.draw_scene(world.CLASSES[row % len(world.CLASSES)], rng)
        path = f"images/{name}/{row:06d}.png"
        world.render(scene).save(folder / path)
        yield path, scene, rng


def _write_instructions(folder: Path, seed: int) -> None:
    lines: list[dict[str, str]] = []
    for path, scene, rng in _scenes(folder, "instructions", INSTRUCTED, _INSTRUCTIONS, seed):
        kind = pick(rng, tuple(ASK))
        asked = [(ASK[kind] + SHORT, right(scene, kind)), _choice(scene, pick(rng, tuple(ASK)), rng)]
        asked += _pair(scene, pick(rng, tuple(PAIRS)), rng)
        lines += [{"image": path, "question": question, "answer": answer} for question, answer in asked]
    write_lines(folder / "instructions.jsonl", lines)


def _write_test(folder: Path, seed: int) -> Scenes:
    scenes: Scenes = []
    lines: list[dict[str, Any]] = []
    for path, scene, rng in _scenes(folder, "test", TESTED, _QUESTIONS, seed):
        scenes.append((path, scene))
        said = [world.clean_caption(scene, rng) for _ in range(REFERENCES)]
        lines += [{"id": len(lines) + n, "text": text, "images": [path]} for n, text in enumerate(said)]
    write_lines(folder / "test.jsonl", lines)
    return scenes


def _write_textvqa(file: Path, scenes: Scenes, seed: int) -> None:
    """Ten annotators, of whom up to two answer something else."""
    rng = np.random.default_rng((seed, _QUESTIONS))
    data: list[dict[str, Any]] = []
    for path, scene in scenes:
        for kind, question in ASK.items():
            answer = right(scene, kind)
            others = [pick(rng, OPTIONS[kind]) for _ in range(int(rng.integers(3)))]
            answers = [*[answer] * (10 - len(others)), *others]
            entry = {"question": question, "image_id": path.removesuffix(".png"), "question_id": len(data)}
            data.append({**entry, "answers": answers})
    content = json.dumps({"dataset_type": "val", "data": data}, indent=1, allow_nan=False)
    file.write_text(content + "\n", encoding="utf-8")


def _choice(scene: world.Scene, kind: str, rng: Rng) -> tuple[str, str]:
    """(question with its options, right letter) as MMBench's are put to a model."""
    options = rng.permutation(OPTIONS[kind]).tolist()
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
    return f"{ASK[kind]}\n{listed}{CHOOSE}", "ABCD"[options.index(right(scene, kind))]


def _write_mmbench(file: Path, scenes: Scenes, seed: int) -> None:
    rng = np.random.default_rng((seed, _QUESTIONS, 1))
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"])
        for index, (path, scene) in enumerate(scenes):
            kind = tuple(ASK)[index % len(ASK)]
            options = rng.permutation(OPTIONS[kind]).tolist()
            letter = "ABCD"[options.index(right(scene, kind))]
            image = base64.b64encode((file.parent / path).read_bytes()).decode()
            table.writerow([index, ASK[kind], "", *options, *[""] * (4 - len(options)), letter, kind, image])


# of MME's subtasks: the question and what goes into it, right in one question of an image and wrong in the other
PAIRS = {
    "color": ("Is the shape {}?", "colour"),
    "existence": ("Is there a {} in the image?", "shape"),
    "scene": ("Is the background {}?", "background"),
    "commonsense_reasoning": ("Would a {} look like this?", "shape"),
}


def _pair(scene: world.Scene, subtask: str, rng: Rng) -> list[tuple[str, str]]:
    """MME's two questions about an image, one to be answered yes and one no."""
    question, kind = PAIRS[subtask]
    wrong = pick(rng, [option for option in OPTIONS[kind] if option != right(scene, kind)])
    return [(question.format(word) + YES_NO, answer) for word, answer in ((right(scene, kind), "Yes"), (wrong, "No"))]


def _write_mme(folder: Path, scenes: Scenes, seed: int) -> None:
    rng = np.random.default_rng((seed, _QUESTIONS, 2))
    for subtask in PAIRS:
        (folder / subtask).mkdir(parents=True)
        lines = []
        for number, (path, scene) in enumerate(scenes[:: len(PAIRS)]):
            name = f"{number:04d}.png"
            (folder / subtask / name).write_bytes((folder.parent / path).read_bytes())
            lines += [f"{name}\t{question}\t{answer}\n" for question, answer in _pair(scene, subtask, rng)]
        (folder / f"{subtask}.txt").write_text("".join(lines), encoding="utf-8")
