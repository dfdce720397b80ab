"""A file's hash is that of all its bytes, and is made again only where the file may have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.data import fingerprints
from engine.data.fingerprints import content_hash, keep_in, read_all_again
from engine.journal import caches
from engine.journal.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A study's database; files count as settled at once."""
    monkeypatch.setattr(fingerprints, "_known", fingerprints._Known())
    monkeypatch.setattr(fingerprints, "SETTLED", -(10**12))
    opened = Store(tmp_path / "study.db")
    keep_in(opened)
    yield opened
    opened.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that are read whole."""
    names: list[str] = []
    digest = hashlib.file_digest

    def watched(file, kind):  # type: ignore[no-untyped-def]
        names.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(fingerprints.hashlib, "file_digest", watched)
    return names


def write(file: Path, size: int = 200_000, byte: bytes = b"a") -> Path:
    file.write_bytes(byte * size)
    return file


def again(store: Store) -> None:
    """As a new process has it."""
    fingerprints._known = fingerprints._Known()
    keep_in(store)


def plain(*contents: bytes) -> str:
    total = hashlib.blake2b(digest_size=8)
    for content in contents:
        total.update(hashlib.blake2b(content, digest_size=16).digest())
    return total.hexdigest()


def test_the_hash_is_that_of_all_bytes_and_a_second_process_reads_none(
    tmp_path: Path, store: Store, read: list[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "a", byte=b"a"), write(folder / "b", byte=b"b"), write(folder / "small", 1000)
    expected = plain(b"a" * 200_000, b"b" * 200_000, b"a" * 1000)
    assert content_hash(folder) == expected
    assert sorted(read) == ["a", "b", "small"]
    again(store)
    read.clear()
    assert content_hash(folder) == expected
    assert read == ["small"]  # which costs nothing


@pytest.mark.parametrize("change", ["size", "time", "bytes, with the time put back", "another file of its name"])
def test_a_file_that_may_have_changed_is_read_again(tmp_path: Path, store: Store, read: list[str], change: str) -> None:
    file = write(tmp_path / "rows.jsonl")
    before, status = content_hash(file), file.stat()
    again(store)
    if change == "size":
        file.write_bytes(b"a" * 200_001)
    elif change == "time":
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change.startswith("bytes"):
        with file.open("r+b") as opened:
            opened.seek(100_000)
            opened.write(b"b")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        write(tmp_path / "other", byte=b"c").rename(file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_hash(file) == plain(file.read_bytes())
    assert (content_hash(file) == before) is (change == "time")
    assert read == ["rows.jsonl"] * 2


def test_a_file_just_written_is_not_trusted(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED", 2 * 10**9)
    content_hash(write(tmp_path / "rows.jsonl"))
    assert not caches.file_hashes(store)
    assert not fingerprints._known.hashes


def test_a_deep_check_reads_all_and_tells_what_differs(tmp_path: Path, store: Store, read: list[str]) -> None:
    file = write(tmp_path / "rows.jsonl")
    right = content_hash(file)
    store.execute("UPDATE file_hashes SET hash = ?", ("00" * 16,))  # as if the disk had kept its times, and no bytes
    again(store)
    assert content_hash(file) != right
    read_all_again()
    assert content_hash(file) == content_hash(file) == right
    assert read == ["rows.jsonl"] * 2
    (event,) = store.query("SELECT level, text FROM events")
    assert event["level"] == "warning"
    assert (
        "rows.jsonl holds other bytes than when it was last read, though its size and times are the same"
        in event["text"]
    )
    again(store)
    assert content_hash(file) == right
    assert len(read) == 2
