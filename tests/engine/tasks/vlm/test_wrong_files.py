"""Files that were once read as something else than they mean: each is read right, or told and left out."""

from __future__ import annotations

import base64
import codecs
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import DataError
from engine.tasks.vlm.benchmarks import read_benchmark
from engine.tasks.vlm.instructions import read_instructions
from tests.engine.tasks.vlm.test_benchmarks import picture

HEAD = "index question hint A B C D answer category image".split()  # noqa: SIM905


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "images" / "a.jpg")
    return tmp_path


def written(file: Path, content: Any, lines: bool = False, bom: bool = False) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
    file.write_bytes((codecs.BOM_UTF8 if bom else b"") + text.encode())
    return file


def vqa(folder: Path, *answers: Any, key: str | None = "data", **form: bool) -> Path:
    rows = [{"question": "q?", "image_id": "a", "question_id": n, "answers": a} for n, a in enumerate(answers)]
    return written(folder / "t.json", {key: rows} if key else rows, **form)


def talk(*turns: tuple[str, Any], **change: Any) -> dict[str, Any]:
    said = [{"from": who, "value": what} for who, what in turns]
    return {"image": "images/a.jpg", "conversations": said, **change}


def asked(folder: Path, *entries: Any, max_bad: float = 0.2, **form: bool) -> list[tuple[str, tuple[str, ...]]]:
    found, _ = read_instructions(written(folder / "i.json", list(entries), **form), max_bad)
    return [(q.text, q.answers) for q in found]


def table(folder: Path, *rows: list[str], quoted: bool = False) -> Path:
    file = folder / "m.tsv"
    with file.open("w", newline="", encoding="utf-8") as out:
        if quoted:
            csv.writer(out, delimiter="\t", lineterminator="\n").writerows([HEAD, *rows])
        else:
            out.write("\n".join("\t".join(row) for row in [HEAD, *rows]) + "\n")
    return file


def line(folder: Path, index: int, question: str, *options: str, answer: str = "A", hint: str = "") -> list[str]:
    image = base64.b64encode((folder / "images" / "a.jpg").read_bytes()).decode()
    return [str(index), question, hint, *options, *[""] * (4 - len(options)), answer, "x", image]


def test_vqav2_answers_are_read_by_their_answer(folder: Path) -> None:
    people = [{"answer": "cat", "answer_confidence": "yes", "answer_id": i} for i in range(10)]
    (question,) = read_benchmark("textvqa", vqa(folder, people))
    assert question.answers == ("cat",) * 10


def test_a_lone_text_is_one_answer_and_no_letters(folder: Path) -> None:
    with pytest.raises(DataError, match="it has 1 answers; TextVQA has ten"):
        read_benchmark("textvqa", vqa(folder, "yes"))


@pytest.mark.parametrize("form", [{"key": None}, {"key": None, "lines": True}, {"key": "data"}])
@pytest.mark.parametrize("bom", [False, True])
def test_benchmarks_and_instructions_are_read_in_every_form_of_json(folder: Path, form: Any, bom: bool) -> None:
    assert len(read_benchmark("textvqa", vqa(folder, ["a", "b"], ["c", "d"], bom=bom, **form))) == 2
    both = [talk(("human", "q"), ("gpt", "a"))] * 2
    assert asked(folder, *both, lines="lines" in form, bom=bom) == [("q", ("a",))] * 2


def test_a_null_answer_is_left_out_and_counted(folder: Path) -> None:
    questions = read_benchmark("textvqa", vqa(folder, *[["a", "b"]] * 9, ["a", None]))
    assert questions.accounting.line == "benchmark textvqa: 9 of 10 questions; left out: 1 null answer"
    good = talk(("human", "q"), ("gpt", "a"))
    assert len(asked(folder, *[good] * 9, talk(("human", "q"), ("gpt", None)))) == 9


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (talk(("gpt", "hello"), ("human", "What is it?")), "after assistant, user each question lacks its own answer"),
        (talk(("human", "q1"), ("human", "q2"), ("gpt", "a1"), ("gpt", "a2")), "lacks its own answer"),
        (talk(("human", "q1"), ("gpt", "a1"), ("human", "q2")), "lacks its own answer"),
        (talk(("human", "q"), ("gpt", None)), "the answer is null"),
        (talk(("human", "q"), ("gpt", "")), "the answer is empty"),
        (talk(("human", "q"), ("gpt", ["a"])), "a part of the answer"),
        (talk(("human", "q"), ("gpt", True)), "the answer is bool, not a text"),
        (talk(("human", "q"), ("tool", "a")), "the role 'tool' is none of human, user"),
        (talk(("human", "q"), ("gpt", "a"), image=["images/a.jpg", "images/a.jpg"]), "it shows 2 images; one is read"),
        (talk(("human", "<image> <image> q"), ("gpt", "a")), "it marks 2 images and names 1"),
        (talk(("human", "q"), ("gpt", "a"), image={"x": 1}), "the image is dict, not a path"),
        (talk(("human", "q"), ("gpt", "a"), image="gone\0"), "the image is str, not a path"),
        (talk(("human", "q"), ("gpt", "a"), question="q", answer="a"), "in several forms at once"),
        ({"image": "images/a.jpg", "conversations": "q"}, "its turns are no list of objects"),
        ({"image": "images/a.jpg", "question": "q", "answer": None}, "the answer is null"),
    ],
)
def test_a_bad_conversation_is_named_and_left_out_up_to_the_limit(folder: Path, entry: Any, told: str) -> None:
    with pytest.raises(DataError, match=r"i\.json, entry 0: ") as caught:
        asked(folder, entry)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    good = talk(("human", "q"), ("gpt", "a"))
    assert asked(folder, *[good] * 9, entry) == [("q", ("a",))] * 9
    with pytest.raises(DataError, match=r"1 of 10 entries are bad \(dataset\.max_bad is 5%\)"):
        asked(folder, *[good] * 9, entry, max_bad=0.05)


@pytest.mark.parametrize(
    ("entry", "right"),
    [
        (talk(("human", "<image>\nq"), ("gpt", "a"), image=["images/a.jpg"]), [("q", ("a",))]),
        (talk(("user", "q"), ("assistant", "a"), image=None, images=["images/a.jpg"]), [("q", ("a",))]),
        (talk(("system", "Be short."), ("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b")),
         [("Be short.\nq", ("a",)), ("r", ("b",))]),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
          "images": "images/a.jpg"}, [("q", ("a",))]),
        ({"messages": [
            {"role": "user", "content": [{"type": "image", "image": "images/a.jpg"}, {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}, [("q", ("a",))]),
        ({"messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "images/a.jpg"}},
                                         {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": "a"}]}, [("q", ("a",))]),
        ({"question": "q", "answer": 7, "image": "images/a.jpg"}, [("q", ("7",))]),
    ],
)  # fmt: skip
def test_every_form_of_a_conversation_is_read_by_role(folder: Path, entry: Any, right: Any) -> None:
    assert asked(folder, entry) == right


def test_nan_is_no_option(folder: Path) -> None:
    questions = read_benchmark("mmbench", table(folder, line(folder, 1, "q", "cat", "dog", "nan", "nan", hint="nan")))
    assert len(questions) == 2
    assert questions[0].text.startswith("q\nA. cat\nB. dog\nAnswer")


def test_an_option_that_is_missing_in_between_keeps_the_answer(folder: Path) -> None:
    first, *_ = read_benchmark("mmbench", table(folder, line(folder, 1, "q", "cat", "", "dog", answer="C")))
    assert "A. cat\nB. dog" in first.text and first.answers == ("B",)


def test_lone_quotes_swallow_no_lines(folder: Path) -> None:
    texts = ["plain", '"Go', "mid", 'which"', "last"]
    questions = read_benchmark(
        "mmbench", table(folder, *(line(folder, n, t, "cat", "dog") for n, t in enumerate(texts)))
    )
    assert [q.text.split("\n")[0] for q in questions[::2]] == texts
    assert questions.accounting.line == (
        "benchmark mmbench: 5 of 5 lines; 10 questions with their rotations; quotes are letters"
    )


def test_columns_in_quotes_may_go_over_lines(folder: Path) -> None:
    texts = ["plain", 'He says "go"\nand goes.', "tab\there", "last"]
    rows = [line(folder, n, t, "cat", "dog") for n, t in enumerate(texts)]
    questions = read_benchmark("mmbench", table(folder, *rows, quoted=True))
    assert [q.text.split("\nA. ")[0] for q in questions[::2]] == texts
    assert questions.accounting.used == questions.accounting.expected == 4


def test_a_line_with_other_columns_is_left_out_by_its_number(folder: Path) -> None:
    rows = [line(folder, n, "q", "cat", "dog") for n in range(9)]
    file = table(folder, *rows, ["9", "cut off"])
    assert read_benchmark("mmbench", file).accounting.left_out == (("other number of columns", 1),)
    with pytest.raises(DataError, match=r"m\.tsv, line 11: it has 2 columns, the head has 10"):
        read_benchmark("mmbench", file, 0.0)


def test_a_bad_line_of_mme_takes_its_pair_along(tmp_path: Path) -> None:
    lines = []
    for n in range(10):
        picture(tmp_path / "color" / f"{n}.png")
        lines += [f"{n}.png\tIs it red?\tYes", f"{n}.png\tIs it blue?\t{'Perhaps' if n == 3 else 'No'}"]
    (tmp_path / "color.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    questions = read_benchmark("mme", tmp_path)
    assert len(questions) == 18
    assert questions.accounting.line == "benchmark mme: 18 of 20 lines; left out: 2 broken lines; 1 subtasks"


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le"])
def test_wide_files_are_refused_in_one_line(folder: Path, coding: str) -> None:
    (folder / "m.tsv").write_text("\t".join(HEAD), encoding=coding)
    (folder / "t.json").write_text("[]", encoding=coding)
    for read, file in ((read_benchmark, "m.tsv"), (read_benchmark, "t.json"), (read_instructions, "t.json")):
        kind = ("mmbench" if file == "m.tsv" else "textvqa",) if read is read_benchmark else ()
        with pytest.raises(DataError, match="is UTF-16, not UTF-8; convert it"):
            read(*kind, folder / file)  # type: ignore[operator]
