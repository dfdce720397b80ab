"""A damaged database is found when a writer opens it, and its copy takes its place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.base.errors import StoreError
from engine.journal.keeping import Keeping, copy_of
from engine.journal.store import Store

Damage = Callable[[Path], None]


def flip(file: Path) -> None:
    """One bit of a stored text, as a disk flips it: the database is sound to SQLite, and its time is the old one."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[content.index(b"it has finished")] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGE: dict[str, Damage] = {
    "flipped": flip,
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: os.truncate(file, 0),
    "gone": Path.unlink,
    "garbage": lambda file: file.write_bytes(b"x" * 9000) and None,
}


def written(folder: Path) -> Path:
    file = folder / "study.db"
    with Store(file) as store:
        store.event("trial", "it has finished")
    return file


def texts(file: Path) -> list[str]:
    with Store(file) as store:
        return [row["text"] for row in store.query("SELECT text FROM events ORDER BY id")]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_replaced_by_its_copy_with_a_line(tmp_path: Path, damage: Damage) -> None:
    file = written(tmp_path)
    damage(file)
    first, line = texts(file)
    assert first == "it has finished"
    assert "its copy of" in line and "run again" in line
    assert texts(file) == [first, line]
    kept = [f for f in tmp_path.iterdir() if "damaged" in f.name]
    assert len(kept) == (damage is not DAMAGE["gone"])


def test_without_a_sound_copy_it_is_one_line(tmp_path: Path) -> None:
    file = written(tmp_path)
    flip(file)
    copy_of(file).write_bytes(b"x")
    with pytest.raises(StoreError, match="has no sound copy; restore a backup"):
        Store(file)


def test_what_another_program_wrote_stays(tmp_path: Path) -> None:
    file = written(tmp_path)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE events SET text = 'edited'")
    assert texts(file) == ["edited"]


def test_the_copy_follows_an_engine_that_is_killed(tmp_path: Path) -> None:
    file = written(tmp_path)
    store = Store(file)
    store.event("trial", "another")
    store.renew_copy()
    with Store(copy_of(file), readonly=True) as copy:
        assert len(copy.query("SELECT * FROM events")) == 2
    store.connection.close()  # as a kill does: nothing is sealed
    store.keeping = None
    os.truncate(file, 5000)
    assert texts(file)[:2] == ["it has finished", "another"]


def test_no_space_for_a_copy_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Store(file) as store:
        monkeypatch.setattr(Keeping, "renew", full)
        store.renew_copy()
    assert "No space left" in texts(file)[-1]


def test_two_writers_and_the_last_one_seals(tmp_path: Path) -> None:
    file = written(tmp_path)
    one, two = Store(file), Store(file)
    one.event("a", "one")
    one.close()
    two.event("a", "two")
    two.close()
    flip(file)
    assert texts(file)[1:3] == ["one", "two"]


def test_a_database_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(Path(":memory:")) as store:
        store.event("trial", "it has finished")
        store.renew_copy()
    assert not list(tmp_path.iterdir())
