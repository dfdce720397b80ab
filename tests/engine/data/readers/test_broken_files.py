"""Files of rows, instructions and questions with anything in them: they are read, or refused in one plain line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import DjsbError
from engine.data.readers.contract import BROKEN, Options
from engine.data.readers.opening import open_reader
from engine.data.sift import Sifted
from engine.tasks.lm.choices import read_questions
from engine.tasks.vlm.benchmarks import read_benchmark
from engine.tasks.vlm.instructions import read_instructions
from tests.conftest import fuzz
from tests.engine.tasks.vlm.test_benchmarks import picture

WORDS = ("image", "images", "question", "answer", "answers", "conversations", "messages", "from", "value", "role",
         "content", "type", "text", "image_id", "question_id", "choices", "data", "a.png", "human", "gpt", "user",
         "assistant", "system", "yes", "nan", "A", "", "<image>", "\0", "../../x", "a" * 300, "\ud83d")  # fmt: skip
NAME = st.sampled_from(WORDS)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | NAME | st.text(max_size=5)
ANY = st.recursive(
    PLAIN, lambda x: st.lists(x, max_size=3) | st.dictionaries(NAME | st.text(max_size=3), x, max_size=5), max_leaves=12
)
# entries that are nearly right, so that what is behind the first check is reached too
TURN = st.fixed_dictionaries({"from": NAME, "value": PLAIN | st.lists(ANY, max_size=2)}) | ANY
PART = st.fixed_dictionaries({"type": NAME, "text": PLAIN, "image": ANY})
MESSAGE = st.fixed_dictionaries({"role": NAME, "content": PLAIN | st.lists(PART, max_size=3)})
PERSON = PLAIN | st.fixed_dictionaries({"answer": PLAIN})
ENTRY = st.one_of(
    st.fixed_dictionaries({"image": NAME | ANY, "conversations": st.lists(TURN, max_size=4)}),
    st.fixed_dictionaries({"images": st.lists(NAME, max_size=2), "messages": st.lists(MESSAGE, max_size=4)}),
    st.fixed_dictionaries({"image_id": NAME, "question_id": PLAIN, "question": PLAIN, "answers": st.lists(PERSON)}),
    st.fixed_dictionaries({"question": PLAIN, "choices": st.lists(NAME, max_size=3), "answer": PLAIN}),
    ANY,
)
TEXT = st.one_of(
    st.lists(ENTRY, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows))),
    st.lists(ENTRY, max_size=4).map(json.dumps),
    st.lists(ENTRY, max_size=4).map(lambda rows: json.dumps({"data": rows}, indent=1)),
    st.text(alphabet='[]{}":,\\tn0e1 \n\t\r\ufeff\x00ä', max_size=40),
)
CODING = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])


@st.composite
def contents(draw: st.DrawFn, text: st.SearchStrategy[str] = TEXT) -> bytes:
    """A text in some coding, of which a piece may be cut out or be other bytes."""
    content = draw(text).encode(draw(CODING), "surrogatepass")
    if draw(st.booleans()):
        a, b = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
        content = content[:a] + draw(st.binary(max_size=3)) + content[b:]
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("broken")
    picture(found / "a.png")
    picture(found / "color" / "a.png")
    return found


def mended(read: Callable[[], Any]) -> Any:
    """What is read, or None where it is refused as it should be."""
    try:
        return read()
    except DjsbError as error:
        assert str(error) and "\n" not in str(error), repr(error)
        return None


def balanced(questions: Sifted[Any] | None) -> None:
    """All is accounted for, and every question has an image or choices, and texts."""
    if questions is None:
        return
    assert questions.accounting.problem is None, questions.accounting
    for question in questions:
        assert all(isinstance(answer, str) for answer in getattr(question, "answers", ()))


@fuzz
@given(content=contents())
def test_json_rows(folder: Path, content: bytes) -> None:
    file = folder / "rows.jsonl"
    file.write_bytes(content)
    reader = mended(lambda: open_reader(file))
    if reader is not None:
        rows = reader.read(0, len(reader))
        assert len(rows) == len(reader)
        assert rows == [row for at in range(len(reader)) for row in reader.read(at, at + 1)] or "NaN" in str(content)
        assert all(isinstance(row, dict) for row in rows) and not all(BROKEN in row for row in rows[:20])


@fuzz
@given(content=contents())
def test_questions_and_instructions(folder: Path, content: bytes) -> None:
    file = folder / "asked.json"
    file.write_bytes(content)
    for most in (0.2, 0.99):
        told = mended(lambda most=most: read_instructions(file, most))  # type: ignore[misc]
        balanced(told and told[0])
        balanced(mended(lambda most=most: read_benchmark("textvqa", file, most)))  # type: ignore[misc]
        balanced(mended(lambda most=most: read_questions("quiz", file, most)))  # type: ignore[misc]


def cells() -> st.SearchStrategy[str]:
    """Tables of MMBench and MME, some of whose columns are too many, too few, quoted or empty."""
    cell = st.sampled_from(
        ["7", "1000007", "A", "B", "nan", "", '"', '"x', 'y"', '"a\tb"', "Yes", "no", "a.png", "A" * 80]
    )
    line = st.lists(cell | st.text(max_size=3), min_size=1, max_size=7).map("\t".join)
    head = st.just("index\tquestion\tA\tB\tanswer\timage")
    return st.tuples(head | line, st.lists(line, max_size=6)).map(lambda parts: "\n".join([parts[0], *parts[1]]))


@fuzz
@given(content=contents(cells()))
def test_tables(folder: Path, content: bytes) -> None:
    for file in (folder / "m.tsv", folder / "color.txt"):
        file.write_bytes(content)
    balanced(mended(lambda: read_benchmark("mmbench", folder / "m.tsv", 0.99)))
    balanced(mended(lambda: read_benchmark("mme", folder, 0.99)))


@fuzz
@given(
    content=contents(cells() | st.text(alphabet='",;\t\n\r a1.', max_size=40)), suffix=st.sampled_from([".csv", ".tsv"])
)
def test_rows_of_tables(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(content)
    reader = mended(lambda: open_reader(file, Options(max_bad=0.99, index=tmp_path / "index")))
    if reader is not None:
        assert len(reader.read(0, len(reader))) == len(reader)


@fuzz
@given(data=st.data(), compress=st.sampled_from([(".gz", gzip.compress), (".zst", zstandard.compress)]))
def test_compressed_rows(tmp_path: Path, data: st.DataObject, compress: Any) -> None:
    suffix, pack = compress
    whole = pack(b'{"text": "a"}\n' * 50)
    at = data.draw(st.integers(0, len(whole)))
    file = tmp_path / f"rows.jsonl{suffix}"
    file.write_bytes(whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 9)) :])
    reader = mended(lambda: open_reader(file, Options(index=tmp_path / "index")))
    if reader is not None:
        assert len(reader.read(0, len(reader))) == len(reader)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bytes]]:
    file = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "text": ["a", "b", "c"]}), file)
    yield file, file.read_bytes()


@fuzz
@given(data=st.data())
def test_parquet_files(parquet: tuple[Path, bytes], data: st.DataObject) -> None:
    file, whole = parquet
    at = data.draw(st.integers(0, len(whole)))
    cut = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 9)) :]
    file.write_bytes(cut)
    reader = mended(lambda: open_reader(file))
    if reader is not None and len(reader) < 1000:
        assert len(reader.read(0, len(reader))) == len(reader)
