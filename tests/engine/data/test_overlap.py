"""Training rows that are near-duplicates of evaluation rows: what counts as one, and what comes of it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.commands.check import _check_overlap
from engine.base.errors import DataError
from engine.data.alike import Pairs, Pictures, Texts, each_once, shingles, signature
from engine.evidence.answer import answer
from engine.journal import results
from engine.loop import outcome
from engine.records.overlap import Overlap, warnings
from engine.settings.data import DedupSection
from engine.study.opened import open_study
from engine.study.view import view_study
from tests.conftest import TEXT_ONLY, Row, Tiny, make_tiny, merged, run_djsb, write_jsonl

PLAIN = DedupSection()
LONG = "the old tower of the town stands near a river and people come to see it every summer of the year"


def index(*texts: str, section: DedupSection = PLAIN, within: int = 0) -> Texts:
    return Texts.of(*each_once(*shingles(texts, section)), section.similarity, within)


def like(found: Texts, *texts: str, section: DedupSection = PLAIN) -> list[tuple[int, int, float]]:
    return triples(found.matches(*shingles(texts, section)))


def triples(pairs: Pairs) -> list[tuple[int, int, float]]:
    return list(zip(*(part.tolist() for part in pairs), strict=True))


def test_a_text_is_like_one_with_a_few_other_words() -> None:
    found = index(
        "a short one", LONG, "something else that says nothing of towers but is about as long as the other is"
    )
    assert like(found, LONG) == [(0, 1, 1.0)]
    [(_, at, alike)] = like(found, LONG.upper() + " and winter")
    assert at == 1 and 0.7 < alike < 1
    assert not like(found, LONG.replace("river", "lake").replace("see it", "look"))  # 9 of 16 runs differ
    assert not like(found, "a short one more")
    assert like(found, "A  short one") == [(0, 0, 1.0)]


def test_the_similarity_is_exact_among_many_texts() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(40)])
    texts = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    asked = [" ".join([*text.split()[:10], "x", "y"]) for text in texts[:100]] + texts[100:150] + ["w1", ""]
    section = DedupSection(window=2, similarity=0.6)
    sets, own = ([set(shingles([t], section)[0].tolist()) for t in some] for some in (texts, asked))
    for within in (0, 1, 9):
        both = {(a, b): len(x & y) / (len(y) if within and len(y) >= within else len(x | y))
                for a, x in enumerate(own) for b, y in enumerate(sets)}  # fmt: skip
        expected = [(a, b, alike) for (a, b), alike in both.items() if alike >= 0.6]
        assert like(index(*texts, section=section, within=within), *asked, section=section) == expected
        assert len(expected) > 100


def test_a_long_text_without_spaces_is_compared_by_its_characters() -> None:
    text = "我们在城里看到了一座很高的塔它是用石头建造的很多人每年夏天都来这里看它因为它非常有名而且漂亮"
    assert [of for _, of, _ in like(index("别的", text), text[:-1] + "美")] == [1]


def test_an_image_is_like_its_copies_and_like_no_other() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(30):
        pixels = rng.normal(0, 1, (6, 6, 3)).repeat(12, 0).repeat(12, 1)
        images.append(Image.fromarray(np.clip(128 + 60 * pixels, 0, 255).astype(np.uint8)))

    def saved(image: Image.Image, kind: str, **options: int) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    def signatures(files: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        found = [signature(file) for file in files]
        return np.array([f[0] for f in found], np.uint64), np.array([f[1] for f in found])

    held = Pictures.of(*signatures([saved(i, "PNG") for i in images[:10]]))
    copies = [saved(i.resize((40, 40)), "JPEG", quality=70) for i in images]
    matches = triples(held.matches(*signatures(copies)))
    assert [(row, of) for row, of, _ in matches] == [(i, i) for i in range(10)]
    brighter = [saved(Image.eval(i, lambda v: min(255, v + 40)), "PNG") for i in images[:10]]
    assert not triples(held.matches(*signatures(brighter)))  # another picture of the same outline


@pytest.fixture
def leaking(tmp_path: Path) -> Tiny:
    """A study of images, 12 of whose training rows are evaluation images, saved anew with other captions."""
    tiny = make_tiny(tmp_path)
    for number in range(12):
        image = Image.open(tmp_path / "data" / tiny.test[number]["images"][0])
        image.resize((20, 20)).save(tmp_path / "data" / tiny.rows[10 * number]["images"][0])
    return tiny


def test_check_tells_them(leaking: Tiny) -> None:
    found = json.loads(run_djsb("check", leaking.study, "--json").stdout)
    assert found["overlap"]["rows"] == 12 and found["overlap"]["held"] == 12 and found["overlap"]["by"] == "images"
    [pair, *_] = found["overlap"]["first"]
    assert (pair["row"], pair["evaluation"], pair["text"]) == (0, 0, leaking.rows[0]["text"])
    done = run_djsb("check", leaking.study)
    assert "WARNING  evaluation: 12 of 60 evaluation rows have near-duplicates among 240 training rows" in done.stdout
    assert "overlap  data 110 is like evaluation 11" not in done.stdout  # five are shown
    assert "overlap  data 10 is like evaluation 1" in done.stdout


def test_dropped_rows_are_in_no_pool_and_refused_ones_end_the_study(leaking: Tiny) -> None:
    leaking.set()
    before = open_study(leaking.study)
    assert before.scan.good.all()
    setup = before.setup
    leaking.set({"evaluation": {"overlap": "drop"}})
    opened = open_study(leaking.study)
    assert np.flatnonzero(~opened.scan.good).tolist() == list(range(0, 120, 10))
    assert opened.scan.overlapping == 12 and opened.scan.bad == 0
    assert opened.setup != setup
    checked = run_djsb("check", leaking.study).stdout
    assert "WARNING" not in checked and "12 like evaluation rows" in checked
    leaking.set({"evaluation": {"overlap": "refuse"}})
    with pytest.raises(DataError, match="12 of 60 evaluation rows"):
        _ = open_study(leaking.study).scan


def test_where_nothing_is_dropped_trials_are_the_same(tiny: Tiny) -> None:
    tiny.set()
    setup = open_study(tiny.study).setup
    tiny.set({"evaluation": {"overlap": "drop"}})
    assert open_study(tiny.study).setup == setup


Asked = Callable[[Tiny], tuple[Row, str]]


def mmbench(tiny: Tiny) -> tuple[Row, str]:
    """Four questions about three images, the first two of which are training rows 7 and 8, saved anew."""
    images = [f"train/{n:04d}.png" for n in (7, 8)] + [tiny.test[0]["images"][0]]
    lines = ["index\tquestion\tA\tB\tanswer\timage"]
    for number, name in enumerate(images):
        out = io.BytesIO()
        Image.open(tiny.root / "data" / name).resize((20, 20)).save(out, "PNG")
        lines.append(f"{number}\twhat colour?\tred\tblue\tA\t{base64.b64encode(out.getvalue()).decode()}")
    (tiny.root / "data" / "mmbench.tsv").write_text("\n".join([*lines, "3\twhich?\tred\tblue\tA\t1"]) + "\n")
    evaluation = {"path": None, "label": None, "benchmarks": {"mmbench": "../data/mmbench.tsv"}}
    return {"task": "vlm", "evaluation": evaluation}, "2 of 3 images of mmbench"


def textvqa(tiny: Tiny) -> tuple[Row, str]:
    """Two questions about an image that is training row 7, one about another."""
    folder = tiny.root / "data" / "textvqa"
    folder.mkdir()
    for name, image in (("a", "train/0007.png"), ("b", tiny.test[0]["images"][0])):
        Image.open(tiny.root / "data" / image).save(folder / f"{name}.jpg", quality=95)
    asked = [{"question": "what?", "image_id": name, "question_id": n, "answers": ["red"] * 10}
             for n, name in enumerate("aab")]  # fmt: skip
    (folder / "val.json").write_text(json.dumps({"data": asked}))
    evaluation = {"path": None, "label": None, "benchmarks": {"textvqa": "../data/textvqa/val.json"}}
    return {"task": "vlm", "evaluation": evaluation}, "1 of 2 images of textvqa"


def evaluation_set(tiny: Tiny) -> tuple[Row, str]:
    """A set of three images in a tar, two of which are training rows 7 and 8."""
    folder = tiny.root / "data" / "wds" / "test"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, name in enumerate(("train/0007.png", "train/0008.png", tiny.test[0]["images"][0])):
            tar.add(tiny.root / "data" / name, f"s{number}.png")
            text = tarfile.TarInfo(f"s{number}.txt")
            text.size = len(b"a thing")
            tar.addfile(text, io.BytesIO(b"a thing"))
    return {"evaluation": {"path": None, "label": None, "sets": {"shown": "../data/wds"}}}, "2 of 3 images of shown"


def choices(tiny: Tiny) -> tuple[Row, str]:
    """Three questions: one with its answer in a long row, a long one without it, and a short one in most rows."""
    long = "In which year after the great fire did the people of the old town build the bridge over the river"
    asked = [("Which old animal keeps the gate of the palace at night", ["a dog", "an owl"]), (long, ["1704", "1810"]),
             ("Who climbed the tower", ["Ann", "Bob"])]  # fmt: skip
    write_jsonl(tiny.root / "data" / "quiz.jsonl", [{"question": q, "choices": c, "answer": 1} for q, c in asked])
    texts = {7: f"Some words. {asked[0][0]} an owl and more words after that", 8: f"Quiz! {long} A. 1704 B. 1810 …"}
    rows = [{**row, "text": texts.get(n, f"{row['text']} {n} and of the tower: Who climbed the tower Bob")}
            for n, row in enumerate(tiny.rows)]  # fmt: skip
    write_jsonl(tiny.train_file, rows)
    evaluation = {"path": None, "label": None, "benchmarks": {"quiz": "../data/quiz.jsonl"}}
    return {**TEXT_ONLY, "task": "lm", "evaluation": evaluation}, "2 of 3 questions of quiz"


@pytest.mark.parametrize("make", [mmbench, textvqa, evaluation_set, choices], ids=lambda make: make.__name__)
def test_items_of_benchmarks_are_told_by_their_name_and_dropped(tmp_path: Path, make: Asked) -> None:
    tiny = make_tiny(tmp_path, 24, 6)
    settings, told = make(tiny)
    tiny.set(settings)
    with (opened := open_study(tiny.study, 1)).store:
        [found] = opened.comparison.overlaps()
        rows = [pair.row for pair in found.first]
        assert found.text.startswith(f"{told} have near-duplicates among 24 training rows: {len(rows)} rows")
        assert rows == [7, 8][: len(rows)] and found.like(found.first[0]).startswith(found.name)
        assert opened.scan.good.all()
        outcome.overlap(opened)
        opened.record(measured=False)
    assert any(reason.startswith(told) for reason in answer(view_study(tiny.study)).reasons)
    tiny.set(merged(settings, {"evaluation": {"overlap": "drop"}}))
    with (opened := open_study(tiny.study, 1)).store:
        assert np.flatnonzero(~opened.scan.good).tolist() == rows and opened.scan.overlapping == len(rows)
    tiny.set(merged(settings, {"evaluation": {"overlap": "refuse"}}))
    with (opened := open_study(tiny.study, 1)).store, pytest.raises(DataError, match=told):
        _ = opened.scan


def test_check_names_the_benchmark_and_the_place(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, 24, 6)
    tiny.set(mmbench(tiny)[0])
    found: Row = {"problems": [], "overlaps": [], "warnings": [], "findings": []}
    with (opened := open_study(tiny.study, 1)).store:
        _check_overlap(opened, found, False)
    assert found["overlap"] is None and found["problems"] == []
    assert found["warnings"][0].startswith("evaluation: 2 of 3 images of mmbench have near-duplicates among 24")
    [pair, _] = found["overlaps"][0]["first"]
    assert (pair["row"], pair["like"]) == (7, "mmbench: mmbench.tsv, line 2")


def test_what_an_earlier_djsb_stored_is_read(tiny: Tiny) -> None:
    old = {"rows": 2, "compared": 9, "training": 9, "held": 1, "evaluation": 5, "by": "text", "left_out": False,
           "first": [{"row": 1, "evaluation": 0, "alike": 1.0, "text": "a"}]}  # fmt: skip
    [read] = results.OVERLAP.read(json.dumps(old)) or ()
    assert read.text.startswith("1 of 5 evaluation rows have near-duplicates among 9 training rows: 2 rows (by text)")
    with (opened := open_study(tiny.study, 1)).store:
        results.OVERLAP.put(opened.store, "0" * 12, (read, replace(read, name="mme", unit="images")))
        assert [o.name for o in results.OVERLAP.get(opened.store, "0" * 12) or ()] == ["", "mme"]


def test_of_many_evaluations_the_worst_are_told_and_the_others_named() -> None:
    every = [Overlap(1, 9, 9, n, 10, "images", name=f"set{n}", unit="images") for n in range(1, 6)]
    told = warnings([*every, Overlap(0, 9, 9, 0, 10, "images"), replace(every[0], left_out=True)])
    assert [line.split(" have ")[0] for line in told[:3]] == [f"{n} of 10 images of set{n}" for n in (5, 4, 3)]
    assert told[3:] == ("Near-duplicates of set2, set1 are among the training rows, too: djsb check.",)


def test_rows_that_have_none_are_told_in_a_line(tiny: Tiny) -> None:
    assert (
        "ok       evaluation: None of 60 evaluation rows has a near-duplicate" in run_djsb("check", tiny.study).stdout
    )


def test_texts_are_compared_where_there_are_no_images(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    rows = [{"id": i, "text": f"{LONG} number {i} of all these towers that I have seen"} for i in range(4)]
    write_jsonl(tiny.test_file, rows)
    write_jsonl(tiny.train_file, [*tiny.rows, {"id": 999, "text": rows[2]["text"] + "!", "images": ["train/0000.png"]}])
    tiny.set({**TEXT_ONLY, "task": "lm", "evaluation": {"path": "../data/test.jsonl", "label": None}})
    opened = open_study(tiny.study)
    [found] = opened.comparison.overlaps()
    assert [pair.row for pair in found.first] == [240] and (found.rows, found.held) == (1, 1)
    assert open_study(tiny.study).comparison.is_known  # it was kept
