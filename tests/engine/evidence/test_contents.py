"""What a pool keeps and drops: planted differences are found, and only those."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.commands.show import show
from engine.evidence import contents as module
from engine.evidence.contents import contents
from engine.journal import pools
from engine.journal.pools import StoredPool
from engine.records.pool import Layer, Pool
from engine.study.opened import OpenStudy, open_study
from tests.conftest import TEXT_ONLY, Tiny, run_djsb, write_jsonl

ROWS = 900
TAG = "buy now cheap"  # the template of a third of the rows, which are the long ones


@pytest.fixture
def planted(tmp_path: Path) -> Tiny:
    """Two sources of texts; the long rows of the second all begin alike."""
    rng = np.random.default_rng(0)
    tiny = Tiny(tmp_path, [], [])
    for name, long in (("news", 0.0), ("shop", 2 / 3)):
        rows = []
        for i in range(ROWS // 2):
            words = rng.choice(["red", "green", "blue", "tall", "small", "old"], 3).tolist()
            spam = rng.random() < long
            text = " ".join([TAG, *words, *words, *words]) if spam else " ".join(words)
            rows.append({"id": f"{name}{i}", "text": text})
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", rows)
    tiny.set({**TEXT_ONLY, "dataset": {
        "path": "", "text": "text", "images": None, "id": "id",
        "sources": {"news": "../data/news.jsonl", "shop": "../data/shop.jsonl"},
    }})  # fmt: skip
    return tiny


def stored(opened: OpenStudy, pool: Pool, label: str = "x") -> StoredPool:
    return StoredPool(pool, label, "single", None, None, None, "")


def high(opened: OpenStudy) -> StoredPool:
    cut = next(c for c in opened.cuts if c.slice.statistic == "text_len" and c.bucket == "high")
    return stored(opened, cut.pool, cut.label)


def test_what_is_concentrated_is_told_with_its_shares(planted: Tiny) -> None:
    with (opened := open_study(planted.study, 1)).store:
        found = contents(opened, high(opened))
        again = contents(opened, high(opened))
    assert found == again
    assert 0 < found.kept < found.rows == found.looked == ROWS
    assert {s.name: s.rows for s in found.sources} == {"news": ROWS // 2, "shop": ROWS // 2}
    kinds = {(kind, s.name) for kind, s in found.concentrated}
    assert ("beginning", TAG) in kinds and ("word", "cheap") in kinds and ("word", "red") not in kinds
    assert {s.name for s in found.statistics if s.shift > 1} == {"text_len", "num_words"}
    assert [(t.cut, t.other) for t in found.twins] == [("text_len", "num_words")]
    assert "standing in for" in " ".join(found.warnings)
    assert all(r.text.startswith(TAG) for r in found.stays) and len(found.stays) == module.EXAMPLES
    assert not {r.row for r in found.stays} & {r.row for r in found.goes}


def test_a_pool_of_all_rows_differs_in_nothing(planted: Tiny) -> None:
    with (opened := open_study(planted.study, 1)).store:
        found = contents(opened, stored(opened, Pool((Layer(),), 100)))
    assert found.kept == found.rows and not found.concentrated and not found.twins and not found.goes
    assert all(abs(s.shift) < 1e-9 for s in (*found.statistics, *found.words, *found.templates))


def test_no_more_rows_are_read_than_the_bound(planted: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED", 512)
    with (opened := open_study(planted.study, 1)).store:
        _ = opened.cuts
        read: list[int] = []
        reader = opened.data.reader
        plain = type(reader).read

        def counted(self: object, start: int, stop: int) -> object:
            read.append(stop - start)
            return plain(reader, start, stop)

        monkeypatch.setattr(type(reader), "read", counted)
        found = contents(opened, high(opened))
    assert found.looked <= 512 and sum(read) <= 512 + 2 * module.EXAMPLES
    assert ("beginning", TAG) in {(kind, s.name) for kind, s in found.concentrated}


def test_examples_of_images_are_small_pictures(tmp_path: Path) -> None:
    from tests.conftest import make_tiny

    tiny = make_tiny(tmp_path, 60, 12)
    tiny.set({"train": {"batch_size": 4}})
    (tiny.root / "data" / "train" / "0003.png").write_bytes(b"no picture")
    with (opened := open_study(tiny.study, 1)).store:
        found = contents(opened, high(opened), pictures=True)
    assert all(r.picture.startswith("data:image/png;base64,") for r in (*found.stays, *found.goes))


def test_show_tells_a_pools_contents_and_what_hinders_it(probed: Tiny) -> None:
    with (opened := open_study(probed.study, 1)).store:
        pool = next(p for p in pools.every(opened.store) if p.kind == "single")
    found = json.loads(run_djsb("show", pool.id, probed.study, "--json").stdout)
    assert found["contents"]["pool"] == pool.id and found["contents"]["statistics"] and not found["contents_problem"]
    text = run_djsb("show", pool.id, probed.study).stdout
    assert "some rows that are kept:" in text and "what differs most" in text
    probed.train_file.unlink()
    row = show(probed.study, pool.id)
    assert row["contents"] is None and "train.jsonl" in row["contents_problem"]
