"""Benchmark files in their own formats; what is broken is named with file and line."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from engine.base.errors import DataError
from engine.tasks.vlm.benchmarks import read_benchmark
from engine.tasks.vlm.instructions import read_instructions


def picture(file: Path) -> bytes:
    """A small PNG at that place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "PNG")
    return file.read_bytes()


def textvqa(folder: Path, **change: object) -> Path:
    entry = {"question": "what colour?", "image_id": "abc", "question_id": 34602, "answers": ["red"] * 10, **change}
    file = folder / "TextVQA_0.5.1_val.json"
    file.write_text(json.dumps({"data": [entry]}))
    return file


def test_textvqa(tmp_path: Path) -> None:
    picture(tmp_path / "train_images" / "abc.jpg")
    (question,) = read_benchmark("textvqa", textvqa(tmp_path))
    assert question.text.startswith("what colour?\nAnswer the question using a single word")
    assert question.answers == ("red",) * 10
    assert question.image == tmp_path / "train_images" / "abc.jpg"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_id": "gone"}, r"val\.json, data\[0\] \(question_id 34602\): the image gone is not there"),
        ({"answers": ["red"]}, r"data\[0\] \(question_id 34602\): it has 1 answers"),
        ({"answers": None}, r"data\[0\] .*: the answer is null"),
    ],
)
def test_a_broken_textvqa_entry_is_named(tmp_path: Path, change: dict[str, object], told: str) -> None:
    picture(tmp_path / "abc.jpg")
    with pytest.raises(DataError, match=told):
        read_benchmark("textvqa", textvqa(tmp_path, **change))


def mmbench(folder: Path, *rows: str) -> Path:
    file = folder / "mmbench.tsv"
    head = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage"
    file.write_text("\n".join([head, *rows]) + "\n")
    return file


def test_mmbench_asks_every_rotation_of_the_options(tmp_path: Path) -> None:
    image = base64.b64encode(picture(tmp_path / "x.png")).decode()
    file = mmbench(
        tmp_path,
        f"7\tWhat is it?\tLook.\tcat\tdog\tcow\t\tB\tobject naming\t{image}",
        f"1000007\tWhat is it?\tLook.\tdog\tcow\tcat\t\tA\tobject naming\t{image}",  # a rotation of the first
        "8\tAnd this?\t\tcat\tdog\t\t\tA\tobject naming\t7",  # the image of row 7
    )
    questions = read_benchmark("mmbench", file)
    assert [q.item for q in questions] == ["7", "7", "7", "8", "8"]
    assert [q.answers for q in questions] == [("B",), ("A",), ("C",), ("A",), ("B",)]
    assert "Look.\nWhat is it?\nA. dog\nB. cow\nC. cat\n" in questions[1].text
    assert questions[0].options == ("A", "B", "C") and questions[0].group == "object_naming"
    assert questions[3].image == questions[0].image


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("9\tWhat?\t\tcat\tdog\t\t\tA\tx\t", r"mmbench\.tsv, line 2: the image of question 9 is missing"),
        ("9\tWhat?\t\tcat\tdog\t\t\tD\tx\t" + "A" * 80, r"line 2: the answer 'D' is none of the 2 options"),
        ("9\tWhat?\t\tcat\tdog\t\t\tA\tx\t" + "*" * 80, r"line 2: the image is not base64"),
    ],
)
def test_a_broken_mmbench_row_is_named(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_benchmark("mmbench", mmbench(tmp_path, row))


def test_mme(tmp_path: Path) -> None:
    picture(tmp_path / "color" / "images" / "a.png")
    (tmp_path / "color.txt").write_text("a.png\tIs it red?\tYes\na.png\tIs it blue?\tNo\n")
    questions = read_benchmark("mme", tmp_path)
    assert [(q.group, q.answers, q.item) for q in questions] == [
        ("color", ("yes",), "color/a.png"), ("color", ("no",), "color/a.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("b.png\tIs it red?\tYes\nb.png\tIs it blue?\tNo\n", r"color\.txt, line 1: the image b\.png is not there"),
        ("a.png\tIs it red?\tMaybe\na.png\tIs it blue?\tNo\n", r"color\.txt, line 1 is not"),
        ("a.png\tIs it red?\tYes\n", r"color\.txt, line 1: the image a\.png has 1 questions"),
    ],
)
def test_a_broken_mme_line_is_named(tmp_path: Path, text: str, told: str) -> None:
    picture(tmp_path / "color" / "a.png")
    (tmp_path / "color.txt").write_text(text)
    with pytest.raises(DataError, match=told):
        read_benchmark("mme", tmp_path)


def test_instructions_in_either_form(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"image": "a.png", "question": "<image>\nWhat?", "answer": "red"}) + "\n")
    llava = tmp_path / "llava.json"
    turns = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "red"}]
    llava.write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}, {"conversations": turns}]))
    for file, left_out in ((lines, 0), (llava, 1)):
        (question,), blind = read_instructions(file)
        assert (question.text, question.answers, blind) == ("What?", ("red",), left_out)


def test_broken_instructions_are_named(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"image": "gone.png", "question": "What?", "answer": "red"}\n')
    with pytest.raises(DataError, match=r"lines\.jsonl, line 1: the image gone\.png is not there"):
        read_instructions(file)
    file.write_text('{"image": "a.png"}\n')
    with pytest.raises(DataError, match=r"lines\.jsonl, line 1: it is none of question and answer"):
        read_instructions(file)
    file.write_text("[1]\n")
    with pytest.raises(DataError, match=r"lines\.jsonl, entry 0: not a JSON object"):
        read_instructions(file)


def test_instructions_whose_images_lie_in_a_zip_say_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "llava.json"
    file.write_text(json.dumps([{"image": "00453/1.jpg", "question": "What?", "answer": "a cat"}]))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("00453/1.jpg", b"x")
    with pytest.raises(DataError, match=r"images\.zip beside it is not opened: unpack it there"):
        read_instructions(file)


def vqav2(folder: Path, *numbers: int) -> Path:
    """VQAv2 as released, of the validation images: two files, answers as objects."""
    questions = [{"image_id": 42, "question": "what colour?", "question_id": number} for number in numbers]
    said = [{"answer": "red", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
    told = [{"question_id": numbers[0], "image_id": 42, "answers": said, "multiple_choice_answer": "red"}]
    (folder / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"info": {}, "annotations": told}))
    file = folder / "v2_OpenEnded_mscoco_val2014_questions.json"
    file.write_text(json.dumps({"info": {}, "task_type": "Open-Ended", "questions": questions}))
    return file


def test_vqav2_as_released(tmp_path: Path) -> None:
    image = tmp_path / "val2014" / "COCO_val2014_000000000042.jpg"
    picture(image)
    (question,) = read_benchmark("vqav2", vqav2(tmp_path, 42000))
    assert (question.image, question.answers) == (image, ("red",) * 10)
    found = read_benchmark("vqav2", vqav2(tmp_path, 42000, 42001), 0.5)
    assert found.accounting.line == "benchmark vqav2: 1 of 2 questions; left out: 1 without an annotation"
    file = vqav2(tmp_path, 1)
    (tmp_path / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(DataError, match=r"v2_mscoco_val2014_annotations\.json are not beside it"):
        read_benchmark("vqav2", file)


def test_mme_as_released(tmp_path: Path) -> None:
    """Texts beside the images in some subtasks, in a folder of their own in others."""
    picture(tmp_path / "existence" / "0001.jpg")
    (tmp_path / "existence" / "0001.txt").write_text("Is there a dog?\tYes\nIs there a cat?\tNo\n")
    for name in ("a", "b"):
        picture(tmp_path / "posters" / "images" / f"{name}.png")
        text = tmp_path / "posters" / "questions_answers_YN" / f"{name}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("Is it a film?\tYes\n" + ("Is it new?\tNo\n" if name == "a" else ""))
    found = read_benchmark("mme", tmp_path, 0.5)
    assert found.accounting.line == "benchmark mme: 4 of 5 lines; left out: 1 no pair; 2 subtasks"
    assert [(q.group, q.item, q.answers) for q in found] == [
        ("existence", "existence/0001", ("yes",)), ("existence", "existence/0001", ("no",)),
        ("posters", "posters/a", ("yes",)), ("posters", "posters/a", ("no",)),
    ]  # fmt: skip
    assert found[2].image == tmp_path / "posters" / "images" / "a.png"
