"""Instructions from every kind of data set that opens."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.base.errors import DataError, MachineError
from engine.data.sift import Sifted
from engine.records.accounting import Accounting
from engine.settings.running import CacheSection
from engine.tasks.vlm.benchmarks import Question
from engine.tasks.vlm.inner import Inner
from engine.tasks.vlm.instructions import fingerprint, read_instructions
from engine.tasks.vlm.native_data import cache_questions
from engine.tasks.vlm.square_instructions import cache_instructions
from tests.engine.tasks.vlm.test_benchmarks import picture

Row = dict[str, Any]
TURNS = [
    {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"},
    {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "yes"},
]  # fmt: skip


def member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def shards(folder: Path, content: bytes) -> Path:
    """A folder of two shards, one with turns as all of its JSON; one sample has no turns."""
    (folder / "s").mkdir()
    for number, turns in enumerate(({"conversations": TURNS, "image": "was/here.jpg"}, TURNS)):
        with tarfile.open(folder / "s" / f"{number}.tar", "w") as archive:
            for key in ("a", "b"):
                member(archive, f"{number}{key}.png", content)
                member(archive, f"{number}{key}.json", json.dumps(turns).encode())
    return folder / "s"


def pattern(folder: Path, content: bytes) -> Path:
    return shards(folder, content) / "{0..1}.tar"


def parquet(folder: Path, content: bytes) -> Path:
    """Pictures in the rows, as the hub has them."""
    rows = [{"images": [{"bytes": content, "path": "x.png"}], "conversations": TURNS, "messages": None}] * 4
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


def packed(folder: Path, content: bytes) -> Path:
    """Lines by gzip, whose pictures are files."""
    (folder / "x.png").write_bytes(content)
    lines = "".join(json.dumps({"image": "x.png", "conversations": TURNS}) + "\n" for _ in range(4))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder / "a.jsonl.gz"


@pytest.mark.parametrize("make", [shards, pattern, parquet, packed])
def test_each_question_is_read_with_its_image(tmp_path: Path, make: Callable[[Path, bytes], Path]) -> None:
    content = picture(tmp_path / "made" / "p.png")
    file = make(tmp_path, content)
    questions, blind = read_instructions(file)
    assert [(q.text, q.answers) for q in questions] == [("What?", ("red",)), ("Sure?", ("yes",))] * 4 and not blind
    for question in questions:
        image = question.image.read() if isinstance(question.image, Inner) else question.image
        assert (image.read_bytes() if isinstance(image, Path) else image) == content
    images = {q.image for q in questions}
    assert len(images) == (1 if make is packed else 4), "an image is one, however many questions ask for it"
    assert questions.accounting.expected == questions.accounting.used == 4
    assert len(fingerprint(tmp_path, str(file))) == 16


def test_a_table_of_questions(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "question", "answer"], ["x.png", "What?", 7], ["x.png", "And?", 8]])
    questions, _ = read_instructions(tmp_path / "a.csv")
    assert [(q.text, q.answers) for q in questions] == [("What?", ("7",)), ("And?", ("8",))]


def test_bad_samples_are_left_out_and_counted(tmp_path: Path) -> None:
    content = picture(tmp_path / "p.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for key in range(8):
            member(archive, f"{key}.png", content)
            if key:
                member(archive, f"{key}.json", json.dumps({"conversations": TURNS}).encode() if key > 1 else b"{")
    found, _ = read_instructions(tmp_path / "a.tar", max_bad=0.5)
    assert found.accounting.used == 6 and dict(found.accounting.left_out) == {"no conversation": 1, "not JSON": 1}
    with pytest.raises(DataError, match=r"2 of 8 entries are bad .* the first: .*a\.tar, row 0: it is none of"):
        read_instructions(tmp_path / "a.tar", max_bad=0.1)


def test_what_does_not_open_is_named_by_its_field(tmp_path: Path) -> None:
    for name in ("gone.jsonl.gz", "gone-*.tar", "gone"):
        with pytest.raises(DataError, match=r"vlm\.instructions: .*gone"):
            fingerprint(tmp_path, str(tmp_path / name))


class Words:
    """An encoder with an id for each word."""

    end = 3

    def question(self, text: str) -> list[int]:
        return [5 + len(word) for word in text.split()]

    answer = question


def cached(folder: Path, count: int, tmp: str) -> tuple[Path, int]:
    """(the caches of so many conversations about two pictures, bytes that making them held at most)."""
    target = folder / ".djsb" / "cache" / tmp
    target.mkdir(parents=True)
    rows = (
        {"image": f"{n % 2}.png", "conversations": [{"from": "human", "value": f"what is {n}"}, *TURNS[1:]]}
        for n in range(count)
    )
    (folder / f"{tmp}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracemalloc.start()
    told, _ = read_instructions(folder / f"{tmp}.jsonl", target=target)
    cache_instructions(told, Words(), 8, 16, target, 0.2, CacheSection())  # type: ignore[arg-type]
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.accounting.used == count and told.accounting.note == f"{2 * count} questions"
    return target, held


def test_instructions_take_no_memory_by_their_number(tmp_path: Path) -> None:
    """Of each a few numbers are held: where it stands, its sizes, which picture it shows."""
    for name in ("0.png", "1.png"):
        picture(tmp_path / name)
    _, few = cached(tmp_path, 5_000, "few")
    target, many = cached(tmp_path, 10_000, "many")
    assert (many - few) / 5_000 < 400  # as texts they take 2,000
    tokens, starts, places = (np.load(target / f"instructions-{n}.npy") for n in ("tokens", "starts", "places"))
    assert tokens.shape == (20_000, 8) and tokens.dtype == np.int32
    assert tokens[2].tolist() == [9, 7, 6, 8, 3, -1, -1, -1]  # what is 1 · red · the end
    assert tokens[3].tolist() == [10, 8, 3, -1, -1, -1, -1, -1]  # Sure? · yes
    assert starts[:4].tolist() == [3, 1, 3, 1] and places[:6].tolist() == [0, 0, 1, 1, 0, 0]
    assert len(np.load(target / "instructions-images.npy")) == 2


def test_an_error_of_the_machine_is_none_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    for name in ("0.png", "1.png"):
        picture(tmp_path / name)
    monkeypatch.setattr("engine.tasks.shared.images.Squares.decode", full)
    monkeypatch.setattr("engine.tasks.vlm.native_data.size_of", full)
    with pytest.raises(MachineError, match=r"few\.jsonl, line 1: .*raise the limit of open files"):
        cached(tmp_path, 4, "few")
    asked = Sifted([Question("x", tmp_path / "0.png", "what", ("a",))], Accounting("benchmark x", 1, 1))
    with pytest.raises(MachineError, match="raise the limit of open files"):
        cache_questions(asked, None, 0.2, tmp_path / ".djsb", "x")  # type: ignore[arg-type]
