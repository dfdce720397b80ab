"""Training rows that are near-duplicates of evaluation rows: what counts as one, and what comes of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.base.errors import DataError
from engine.data.alike import BITS, Pictures, Texts, shingles, signature
from engine.settings.data import DedupSection
from engine.study.opened import open_study
from tests.conftest import TEXT_ONLY, Tiny, make_tiny, run_djsb, write_jsonl

PLAIN = DedupSection()
LONG = "the old tower of the town stands near a river and people come to see it every summer of the year"


def index(*texts: str, section: DedupSection = PLAIN) -> Texts:
    return Texts.of([shingles(text, section) for text in texts])


def like(found: Texts, text: str, section: DedupSection = PLAIN) -> list[tuple[int, int, float]]:
    return list(found.matches([shingles(text, section)], section.similarity))


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
    asked = [" ".join([*text.split()[:10], "x", "y"]) for text in texts[:100]] + texts[100:150]
    section = DedupSection(window=2, similarity=0.6)
    found = index(*texts, section=section)
    sets = [set(shingles(t, section).tolist()) for t in texts]
    for text in asked:
        own = set(shingles(text, section).tolist())
        best = max(len(own & other) / len(own | other) for other in sets)
        told = like(found, text, section)
        assert [round(alike, 9) for *_, alike in told] == ([round(best, 9)] if best >= 0.6 else [])


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

    held = Pictures(*signatures([saved(i, "PNG") for i in images[:10]]), np.arange(10, dtype=np.int32))
    copies = [saved(i.resize((40, 40)), "JPEG", quality=70) for i in images]
    matches = held.matches(*signatures(copies), BITS)
    assert [(row, of) for row, of, _ in matches] == [(i, i) for i in range(10)]
    brighter = [saved(Image.eval(i, lambda v: min(255, v + 40)), "PNG") for i in images[:10]]
    assert not list(held.matches(*signatures(brighter), BITS))  # another picture of the same outline


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
    pairs = open_study(tiny.study).overlapping()
    assert pairs is not None and pairs.rows.tolist() == [240]
    again = open_study(tiny.study).overlapping(only_known=True)
    assert again is not None and again.rows.tolist() == [240]  # it was kept
