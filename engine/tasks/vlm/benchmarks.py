"""Questions about images, read from local files: benchmarks in their own formats, and instructions to train on.

Every message names the file and the line (or the entry, in a JSON list), so that a broken one can be mended.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.tasks.vlm.scores import COGNITION, PERCEPTION

LETTERS = "ABCDEFGH"
SUFFIXES = (".jpg", ".png", ".jpeg")
CIRCULAR = 1_000_000  # MMBench gives a question's rotations its index plus a multiple of this
REFERENCE = 64  # an image field no longer than this is the index of the row whose image it shares
IMAGE_MARK = "<image>"
SHORT = "\nAnswer the question using a single word or phrase."
CHOOSE = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Question:
    """One question about an image.

    place: where it stands, for messages. image: a file, or its bytes. answers: what is right; TextVQA has ten.
    options: the answers to choose from, empty when any text may be given. group: MME's subtask or MMBench's
    category. item: what the rotations of a question, or the questions of an image, have in common.
    """

    place: str
    image: Path | bytes
    text: str
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    group: str = ""
    item: str = ""


def _found(place: str, folders: list[Path], name: str, suffixes: tuple[str, ...] = ("",)) -> Path:
    """The image of that name in one of the folders. Raises: DataError that names the place."""
    for folder in folders:
        for suffix in suffixes:
            if (file := folder / f"{name}{suffix}").is_file():
                return file
    where = ", ".join(str(folder) for folder in folders)
    raise DataError(f"{place}: the image {name} is not there (looked in {where}); add it, or take the line out")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); check the path, and that it is UTF-8 text") from error


def _json(file: Path) -> Any:
    try:
        return json.loads(_text(file))
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}); mend it there") from error


def read_textvqa(file: Path) -> Iterator[Question]:
    """TextVQA_0.5.1_val.json: {"data": [{question, image_id, question_id, answers: ten}]}.

    Images are IMAGE_ID.jpg beside the file, or in train_images/, test_images/ or images/ there.
    """
    content = _json(file)
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{file} has no list `data`, so it is no TextVQA file; give TextVQA_0.5.1_val.json or its like")
    folders = [file.parent / name for name in ("train_images", "test_images", "images", "")]
    for number, entry in enumerate(entries):
        place = f"{file}, data[{number}]"
        try:
            place += f" (question_id {entry['question_id']})"
            answers = tuple(str(answer) for answer in entry["answers"])
            question, image = str(entry["question"]), str(entry["image_id"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{place} lacks {error}; a question has question_id, question, image_id, answers") from None
        if len(answers) < 2:
            raise DataError(f"{place} has {len(answers)} answers; TextVQA has ten, two at least are needed")
        yield Question(place, _found(place, folders, image, SUFFIXES), question + SHORT, answers, item=str(number))


def read_mmbench(file: Path) -> Iterator[Question]:
    """MMBench's TSV: index, image (base64, or the index of the row that has it), question, hint, A … D, answer, …

    Every question comes once for each rotation of its options. Rows that are rotations already (index of a million
    and more, whose first form is there) are left out.
    """
    csv.field_size_limit(1 << 30)
    images: dict[str, bytes] = {}
    wanted: list[tuple[str, dict[str, str]]] = []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        if lacking := [
            name for name in ("index", "image", "question", "answer") if name not in (rows.fieldnames or ())
        ]:
            raise DataError(f"{file}, line 1: no column {', '.join(lacking)}; MMBench's TSV has them")
        for row in rows:
            place = f"{file}, line {rows.line_num}"
            if len(row["image"] or "") > REFERENCE:
                try:
                    images[row["index"]] = base64.b64decode(row["image"], validate=True)
                except binascii.Error as error:
                    raise DataError(
                        f"{place}: the image is not base64 ({error}); mend it, or take the line out"
                    ) from None
            wanted.append((place, row))
    known = {row["index"] for _, row in wanted}
    for place, row in wanted:
        index = row["index"]
        if index.isdigit() and int(index) >= CIRCULAR and str(int(index) % CIRCULAR) in known:
            continue
        image = images.get(index) or images.get((row["image"] or "").strip())
        if image is None:
            raise DataError(f"{place}: the image of question {index} is missing; add it, or take the line out")
        yield from _rotations(place, row, image)


def _rotations(place: str, row: dict[str, str], image: bytes) -> Iterator[Question]:
    """The question with its options moved on by 0, 1, … places."""
    options = [row[letter] for letter in LETTERS if (row.get(letter) or "").strip()]
    answer = (row["answer"] or "").strip().upper()
    if len(options) < 2 or answer not in LETTERS[: len(options)] or not answer:
        raise DataError(f"{place}: the answer {answer!r} is none of the {len(options)} options; mend it")
    hint = (row.get("hint") or "").strip()
    asked = f"{hint}\n{row['question']}" if hint and hint != "nan" else row["question"]
    letters = LETTERS[: len(options)]
    right = letters.index(answer)
    for turn in range(len(options)):
        turned = options[turn:] + options[:turn]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, turned, strict=True))
        now = letters[(right - turn) % len(options)]
        category = re.sub(r"\W+", "_", row.get("category") or "")
        yield Question(place, image, f"{asked}\n{listed}{CHOOSE}", (now,), tuple(letters), category, row["index"])


def read_mme(folder: Path) -> Iterator[Question]:
    """MME: SUBTASK.txt with `image TAB question TAB answer` lines, two an image.

    Images are in SUBTASK/images/, SUBTASK/ or images/ beside the text files.
    """
    files = sorted(file for file in folder.glob("*.txt") if file.stem in (*PERCEPTION, *COGNITION))
    if not files:
        raise DataError(f"{folder} has no text file of an MME subtask (existence.txt, count.txt, …); give MME's folder")
    for file in files:
        folders = [folder / file.stem / "images", folder / file.stem, folder / "images"]
        asked: dict[str, list[str]] = {}
        for number, line in enumerate(_text(file).split("\n"), 1):
            place = f"{file}, line {number}"
            if not line.strip():
                continue
            parts = line.split("\t")
            if len(parts) < 3 or parts[2].strip().lower() not in ("yes", "no"):
                raise DataError(f"{place} is not `image TAB question TAB Yes or No`; mend it")
            name, question, answer = parts[0].strip(), parts[1], parts[2].strip().lower()
            asked.setdefault(name, []).append(place)
            image = _found(place, folders, name)
            yield Question(place, image, question, (answer,), ("yes", "no"), file.stem, f"{file.stem}/{name}")
        for name, places in asked.items():
            if len(places) != 2:
                raise DataError(f"{places[0]}: the image {name} has {len(places)} questions; MME asks two an image")


READERS: dict[str, Callable[[Path], Iterator[Question]]] = {
    "textvqa": read_textvqa, "mmbench": read_mmbench, "mmbench_cn": read_mmbench, "mme": read_mme,
}  # fmt: skip


def read_benchmark(name: str, path: Path) -> list[Question]:
    """All questions of a benchmark.

    Raises: DataError that names file and line when something is missing or of another form.
    """
    if not path.exists():
        raise DataError(f"evaluation.benchmarks.{name}: {path} does not exist; check the path")
    if path.is_dir() != (name == "mme"):
        raise DataError(f"evaluation.benchmarks.{name}: {path} is {'a' if path.is_dir() else 'no'} folder; MME is one")
    questions = list(READERS[name](path))
    if not questions:
        raise DataError(f"evaluation.benchmarks.{name}: {path} asks nothing; give a file with questions")
    return questions


def read_instructions(file: Path) -> tuple[list[Question], int]:
    """(questions with their one answer, turns that were left out as they show no image).

    JSON lines or a JSON list of {"image", "question", "answer"}, or LLaVA's {"image", "conversations": [{"value"}]},
    where every turn of a person and the reply make one question. Image paths start from the file's folder.
    """
    text = _text(file)
    entries: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        entries = [(f"{file}, entry {n}", entry) for n, entry in enumerate(_json(file))]
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    entries.append((f"{file}, line {number}", json.loads(line)))
                except ValueError as error:
                    raise DataError(f"{file}, line {number} is not JSON ({error}); mend it there") from None
    questions: list[Question] = []
    blind = 0
    for place, entry in entries:
        turns = list(_turns(place, entry))
        if not entry.get("image"):
            blind += len(turns)
            continue
        image = _found(place, [file.parent], str(entry["image"]))
        questions += [Question(place, image, asked, (reply,)) for asked, reply in turns]
    if not questions:
        raise DataError(f"{file} has no question with an image; give instructions with images")
    return questions, blind


def _turns(place: str, entry: Any) -> Iterator[tuple[str, str]]:
    """(question, answer) of every turn of an entry, without the mark where the image goes."""
    try:
        if "conversations" in entry:
            said = [str(turn["value"]).replace(IMAGE_MARK, "").strip() for turn in entry["conversations"]]
            yield from zip(said[::2], said[1::2], strict=True)
        else:
            yield str(entry["question"]).replace(IMAGE_MARK, "").strip(), str(entry["answer"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place} is neither question and answer nor pairs of turns in conversations ({error}); mend it"
        ) from None
