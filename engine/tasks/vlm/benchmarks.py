"""Questions about images, read from local files: benchmarks in their own formats.

Every message names the file and the line (or the entry, in a JSON list), so that a broken one can be mended.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base import machine
from engine.base.errors import DataError
from engine.base.text import read_text
from engine.data.conversations import text_of
from engine.data.fingerprints import content_hash
from engine.data.judged import Item, Judged, Listed
from engine.data.readers.contract import BROKEN, Row
from engine.data.readers.json_rows import entries
from engine.data.sift import MAX_BAD, Sifted, Unusable, sift
from engine.tasks.vlm.inner import Inner
from engine.tasks.vlm.scores import COGNITION, PERCEPTION
from engine.tasks.vlm.tsv import WIDTH, read_tsv

LETTERS = "ABCDEFGH"
SUFFIXES = (".jpg", ".png", ".jpeg")
CIRCULAR = 1_000_000  # MMBench gives a question's rotations its index plus a multiple of this
REFERENCE = 64  # an image field no longer than this is the index of the row whose image it shares
SHORT = "\nAnswer the question using a single word or phrase."
CHOOSE = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Question:
    """One question about an image.

    place: where it stands, for messages. image: a file, its bytes, or where they lie. answers: what is right; TextVQA
    has ten. options: the answers to choose from, empty when any text may be given. group: MME's subtask or MMBench's
    category. item: what the rotations of a question, or the questions of an image, have in common.
    """

    place: str
    image: Path | bytes | Inner
    text: str
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    group: str = ""
    item: str = ""


def image_of(folders: list[Path], name: Any, suffixes: tuple[str, ...] = ("",)) -> Path:
    """The image of that name in one of the folders. Raises: Unusable."""
    if not isinstance(name, str) or "\0" in name:
        raise Unusable("no image path", f"the image is {type(name).__name__}, not a path")
    for folder in folders:
        for suffix in suffixes:
            try:
                if (file := folder / f"{name}{suffix}").is_file():
                    return file
            except OSError as error:  # a name that no file can have
                machine.refuse(error, str(folder))
                break
    where = ", ".join(str(folder) for folder in folders)
    raise Unusable("missing image", f"the image {name[:200]} is not there (looked in {where})")


def answers_of(value: Any) -> tuple[str, ...]:
    """The answers as people gave them: a list of texts, or of VQAv2's objects with `answer`; a lone text is one answer.

    Raises: Unusable.
    """
    listed = value if isinstance(value, list) else [value]
    return tuple(text_of(one.get("answer") if isinstance(one, dict) else one, "answer") for one in listed)


def read_textvqa(file: Path, name: str, max_bad: float) -> Sifted[Question]:
    """TextVQA_0.5.1_val.json: {"data": [{question, image_id, question_id, answers: ten}]}, or the list by itself.

    Images are IMAGE_ID.jpg beside the file, or in train_images/, test_images/ or images/ there.
    """
    folders = [file.parent / folder for folder in ("train_images", "test_images", "images", "")]

    def read(place: str, entry: Row) -> Question:
        if BROKEN in entry:
            raise Unusable("not a JSON object", str(entry[BROKEN]))
        if lacking := [part for part in ("question_id", "question", "image_id", "answers") if part not in entry]:
            raise Unusable(f"lacks {lacking[0]}", f"it lacks {', '.join(lacking)}")
        answers, question = answers_of(entry["answers"]), text_of(entry["question"], "question")
        if len(answers) < 2:
            raise Unusable("fewer than two answers", f"it has {len(answers)} answers; TextVQA has ten, two are needed")
        image = image_of(folders, text_of(entry["image_id"], "image_id"), SUFFIXES)
        return Question(place, image, question + SHORT, answers)

    items = (
        (f"{place} (question_id {e['question_id']})" if "question_id" in e else place, e)
        for place, e in entries(file, "data")
    )
    return sift(name, "questions", items, read, max_bad)


def annotations_of(questions: Path) -> Path:
    """The annotations of VQAv2 that belong to a file of its questions."""
    return questions.with_name(questions.name.replace("OpenEnded_", "").replace("_questions", "_annotations"))


def read_vqav2(file: Path, name: str, max_bad: float) -> Sifted[Question]:
    """VQAv2's v2_OpenEnded_mscoco_SPLIT_questions.json; its annotations stand beside it, by their released name.

    Images are COCO_SPLIT_000000000001.jpg beside the file, or in SPLIT/ or images/ there.
    """
    beside = annotations_of(file)
    if beside == file or not beside.is_file():
        raise DataError(f"{file}: VQAv2's annotations {beside.name} are not beside it; give the questions' file")
    told = {row["question_id"]: row for _, row in entries(beside, "annotations") if "question_id" in row}
    found = re.search(r"mscoco_(\w+?)_questions", file.name)
    split = found[1] if found else "val2014"
    folders = [file.parent / folder for folder in (split, "images", "")]

    def read(place: str, entry: Row) -> Question:
        if BROKEN in entry:
            raise Unusable("not a JSON object", str(entry[BROKEN]))
        number, image = entry.get("question_id"), entry.get("image_id")
        if number not in told:
            raise Unusable("without an annotation", f"question_id {number} has no annotation in {beside.name}")
        if not isinstance(image, int):
            raise Unusable("no image_id", f"the image_id is {type(image).__name__}, not a number")
        answers = answers_of(told[number].get("answers"))
        if len(answers) < 2:
            raise Unusable("fewer than two answers", f"it has {len(answers)} answers; VQAv2 has ten, two are needed")
        file_of = image_of(folders, f"COCO_{split}_{image:012d}", SUFFIXES)
        return Question(place, file_of, text_of(entry.get("question"), "question") + SHORT, answers)

    return sift(name, "questions", entries(file, "questions"), read, max_bad)


def read_mmbench(file: Path, name: str, max_bad: float) -> Sifted[Question]:
    """MMBench's TSV: index, image (base64, or the index of the row that has it), question, hint, A … D, answer, …

    Every question comes once for each rotation of its options. Rows that are rotations already (index of a million
    and more, whose first form is there) are left out.
    """
    rows, note = read_tsv(file, ("index", "image", "question", "answer"))
    known = {row["index"]: row for _, row in rows if WIDTH not in row}
    images: dict[str, bytes | None] = {}

    def image(index: str) -> bytes | None:
        """The image that stands in a row, decoded once; None where there is none."""
        if index not in images:
            images[index] = _decoded(known[index]["image"])
        return images[index]

    def read(place: str, row: dict[str, str]) -> list[Question]:
        if WIDTH in row:
            raise Unusable("other number of columns", row[WIDTH])
        index = row["index"]
        if known[index] is not row:
            raise Unusable("index twice", f"the index {index} stands in a later line too")
        if index.isdecimal() and int(index) >= CIRCULAR and str(int(index) % CIRCULAR) in known:
            raise Unusable("rotations of others", spared=True)
        owner = index if len(row["image"]) > REFERENCE else row["image"].strip()
        found = image(owner) if owner in known else None
        if found is None:
            raise Unusable("missing image", f"the image of question {index} is missing")
        return list(_rotations(place, row, found))

    found = sift(name, "lines", rows, read, max_bad)
    questions = [question for line in found for question in line]
    told = f"{len(questions)} questions with their rotations" + (f"; {note}" if note else "")
    return Sifted(questions, found.accounting.noted(told), found.bad)


def _decoded(image: str) -> bytes | None:
    """The bytes of a base64 image; None where the field is a reference, or empty. Raises: Unusable."""
    if len(image) <= REFERENCE:
        return None
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unusable("broken base64", f"the image is not base64 ({error})") from None


def _rotations(place: str, row: dict[str, str], image: bytes) -> Iterator[Question]:
    """The question with its options moved on by 0, 1, … places."""
    there = [letter for letter in LETTERS if _filled(row.get(letter))]
    options = [row[letter] for letter in there]
    answer = row["answer"].strip().upper()
    if len(options) < 2 or answer not in there:
        raise Unusable("no such answer", f"the answer {answer!r} is none of the {len(options)} options")
    if not _filled(row["question"]):
        raise Unusable("empty question", "the question is empty")
    asked = f"{row['hint'].strip()}\n{row['question']}" if _filled(row.get("hint")) else row["question"]
    letters = LETTERS[: len(options)]
    right = there.index(answer)
    for turn in range(len(options)):
        turned = options[turn:] + options[:turn]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, turned, strict=True))
        now = letters[(right - turn) % len(options)]
        category = re.sub(r"\W+", "_", row["category"]) if _filled(row.get("category")) else ""
        yield Question(place, image, f"{asked}\n{listed}{CHOOSE}", (now,), tuple(letters), category, row["index"])


def _filled(field: str | None) -> bool:
    """False where a field is empty, or holds the `nan` that pandas writes for an empty one."""
    return (field or "").strip() not in ("", "nan")


def read_mme(folder: Path, name: str, max_bad: float) -> Sifted[Question]:
    """MME: SUBTASK.txt with `image TAB question TAB answer` lines, two an image; or folders SUBTASK as released.

    There each image has a text beside it, or in questions_answers_YN/, of two lines `question TAB answer`. Images are
    in SUBTASK/images/, SUBTASK/ or images/ beside the text files. A bad line takes its pair with it.
    """
    files = sorted(file for file in folder.glob("*.txt") if file.stem in (*PERCEPTION, *COGNITION))
    own = {file.stem for file in files}
    folders = sorted(f for f in folder.iterdir() if f.name in (*PERCEPTION, *COGNITION) and f.name not in own)
    folders = [sub for sub in folders if any(_texts(sub))]
    if not files and not folders:
        raise DataError(f"{folder} has no subtask of MME (existence.txt, or a folder existence/, …); give MME's folder")

    def read(_: str, lines: list[tuple[str, Path, list[str]]]) -> list[Question]:
        if len(lines) != 2:
            raise Unusable("no pair", f"the image {lines[0][2][0]} has {len(lines)} questions; MME asks two an image")
        return [_yes_or_no(folder, *line) for line in lines]

    found = sift(name, "lines", [*_pairs(files), *_released(folders)], read, max_bad, len)
    questions = [question for pair in found for question in pair]
    return Sifted(questions, found.accounting.noted(f"{len(files) + len(folders)} subtasks"), found.bad)


def _texts(subtask: Path) -> list[Path]:
    """The texts of a subtask's folder, one for each image."""
    return sorted([*subtask.glob("*.txt"), *(subtask / "questions_answers_YN").glob("*.txt")])


def _released(folders: list[Path]) -> Iterator[tuple[str, list[tuple[str, Path, list[str]]]]]:
    """The same as `_pairs` of subtasks' folders; the image has its text's name."""
    for subtask in folders:
        for file in _texts(subtask):
            lines = [
                (f"{file}, line {number}", subtask, [file.stem, *(part.strip() for part in line.rstrip().split("\t"))])
                for number, line in enumerate(read_text(file).split("\n"), 1)
                if line.strip()
            ]
            if lines:
                yield lines[0][0], lines


def _pairs(files: list[Path]) -> Iterator[tuple[str, list[tuple[str, Path, list[str]]]]]:
    """(place, lines) of each image: lines as place, file, columns."""
    for file in files:
        lines: dict[str, list[tuple[str, Path, list[str]]]] = {}
        for number, line in enumerate(read_text(file).split("\n"), 1):
            if line.strip():
                parts = [part.strip() for part in line.rstrip().split("\t")]
                lines.setdefault(parts[0], []).append((f"{file}, line {number}", file, parts))
        for of_image in lines.values():
            yield of_image[0][0], of_image


def _yes_or_no(folder: Path, place: str, file: Path, parts: list[str]) -> Question:
    """One line as a question. Raises: Unusable."""
    if len(parts) != 3 or parts[2].lower() not in ("yes", "no"):
        raise Unusable("broken lines", f"{place} is not `image TAB question TAB Yes or No`")
    image, question, answer = parts
    folders = [folder / file.stem / "images", folder / file.stem, folder / "images"]
    item = f"{file.stem}/{image}"
    return Question(
        place, image_of(folders, image, ("", *SUFFIXES)), question, (answer.lower(),), ("yes", "no"), file.stem, item
    )


READERS: dict[str, Callable[[Path, str, float], Sifted[Question]]] = {
    "textvqa": read_textvqa, "vqav2": read_vqav2, "mmbench": read_mmbench, "mmbench_cn": read_mmbench, "mme": read_mme,
}  # fmt: skip


def read_benchmark(name: str, path: Path, max_bad: float = MAX_BAD) -> Sifted[Question]:
    """All questions of a benchmark, without bad ones up to the limit.

    Raises: DataError that names file and line when something is missing or of another form.
    """
    if not path.exists():
        raise DataError(f"evaluation.benchmarks.{name}: {path} does not exist; check the path")
    if path.is_dir() != (name == "mme"):
        raise DataError(f"evaluation.benchmarks.{name}: {path} is {'a' if path.is_dir() else 'no'} folder; MME is one")
    questions = READERS[name](path, f"benchmark {name}", max_bad)
    if not questions:
        raise DataError(f"evaluation.benchmarks.{name}: {path} asks nothing; give a file with questions")
    return questions


def judged(name: str, path: Path, max_bad: float) -> Judged:
    """The images that a benchmark asks about, each once, to be compared with those of the training rows."""

    def read() -> list[Item]:
        found: dict[Path | bytes, str] = {}
        for question in read_benchmark(name, path, max_bad):
            assert not isinstance(question.image, Inner)
            found.setdefault(question.image, question.place.replace(f"{path.parent}/", ""))
        return [Item(place, (image,)) for image, place in found.items()]

    return Judged(name, "images", "images", Listed([name, content_hash(path)], read))
