"""The store: what is committed stays, what is not leaves no trace, and every failure says what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from engine.base.errors import StoreError
from engine.journal import trials
from engine.journal.patience import Patience
from engine.journal.results import Result
from engine.journal.schema import STEPS, schema
from engine.journal.store import Store

EVENT = "INSERT INTO events(level, kind, text, at) VALUES('info', 'k', 't', 'now')"


def older(file: Path) -> None:
    """A database as the first version left it."""
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as db:
        first = Migrations("djsb")
        first()(STEPS[0])
        first.apply(Database(db))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".djsb" / "study.db"


def test_a_new_store_is_migrated_and_in_wal_mode(file: Path) -> None:
    with Store(file) as store:
        assert store.one("PRAGMA journal_mode") == {"journal_mode": "wal"}
        assert not schema().pending(store.db)
        assert store.query("SELECT * FROM trials") == []
        assert store.one("SELECT * FROM trials") is None


def test_what_was_written_is_there_after_opening_again(file: Path) -> None:
    with Store(file) as store:
        store.put("metrics", [{"trial": "t", "name": n, "value": v} for n, v in (("a", 0.0), ("b", None), ("c", -1.5))])
    with Store(file, readonly=True) as store:
        rows = store.query("SELECT name, value FROM metrics WHERE trial = ? ORDER BY name", ("t",))
        assert rows == [{"name": "a", "value": 0.0}, {"name": "b", "value": None}, {"name": "c", "value": -1.5}]


def test_put_replaces_by_primary_key(file: Path) -> None:
    with Store(file) as store:
        for value in (1.0, 2.0):
            store.put("metrics", {"trial": "t", "name": "a", "value": value})
        store.put("metrics", [])
        assert store.query("SELECT value FROM metrics") == [{"value": 2.0}]


def test_a_transaction_happens_as_a_whole_or_not_at_all(file: Path) -> None:
    with Store(file) as store:
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.event("first", "never seen")
            with store.transaction():  # nested
                store.event("second", "never seen")
            raise ZeroDivisionError
        assert store.query("SELECT * FROM events") == []
        with store.transaction():
            store.event("third", "seen", "subject", "warning")
        assert store.one("SELECT kind, text, subject, level FROM events") == {
            "kind": "third", "text": "seen", "subject": "subject", "level": "warning",
        }  # fmt: skip


def test_a_connection_that_is_cut_off_leaves_only_what_was_committed(file: Path) -> None:
    store = Store(file)
    store.event("before", "committed")
    with pytest.raises(StoreError), store.transaction():
        store.event("after", "not committed")
        store.close()
        store.event("never", "the connection is gone")
    with Store(file) as again:
        assert [r["kind"] for r in again.query("SELECT kind FROM events")] == ["before"]


def test_a_reader_sees_what_is_committed_while_the_engine_writes(file: Path) -> None:
    with Store(file) as writer, Store(file, readonly=True) as reader:
        with writer.transaction():
            writer.event("k", "t")
            assert reader.query("SELECT * FROM events") == []
        assert len(reader.query("SELECT * FROM events")) == 1


def test_half_characters_in_what_happened_are_question_marks(file: Path) -> None:
    with Store(file) as store:
        store.event("metric", "half \ud800", "t1", "warning")
        trials.fail(store, "t1", "half \udcff")
        assert store.one("SELECT text FROM events") == {"text": "half ?"}


def test_results_are_json_and_refuse_what_json_cannot_hold(file: Path) -> None:
    with Store(file) as store:
        for content in ({"a": [1, None, "ü"]}, {}, [], 0, None):
            Result[Any]("name", Any).put(store, "c", content)
            assert Result[Any]("name", Any).get(store, "c") == content
        assert Result[Any]("other", Any).get(store, "c") is None
        assert Result[Any]("name", Any).get(store, "d") is None
        Result[Any]("name", Any).put(store, "c", 1)
        with pytest.raises(ValueError, match="Out of range float values"):
            Result[Any]("name", Any).put(store, "c", {"a": float("nan")})
        assert Result[Any]("name", Any).get(store, "c") == 1


def test_a_reader_of_nothing_says_what_makes_it(file: Path) -> None:
    with pytest.raises(StoreError, match=r"does not exist yet; run djsb auto or djsb pools first"):
        Store(file, readonly=True)
    assert not file.exists()


def test_an_older_database_is_migrated_by_the_engine_only(file: Path) -> None:
    older(file)
    with pytest.raises(StoreError, match="older djsb; end its engine"):
        Store(file, readonly=True)
    with Store(file) as store:
        assert store.query("SELECT * FROM trials") == []


def test_a_newer_database_is_refused_by_name_and_not_changed(file: Path) -> None:
    Store(file).close()
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("INSERT INTO _sqlite_migrations(migration_set, name, applied_at) VALUES('djsb', 'm900', 'later')")
    before = file.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreError, match=r"newer djsb \(it has m900\); upgrade djsb"):
            Store(file, readonly)
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_damaged_and_left_alone(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    for readonly in (False, True):
        with pytest.raises(StoreError, match="damaged"):
            Store(file, readonly)
    assert file.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("readonly", [False, True])
def test_an_emptied_database_is_called_empty_and_left_alone(file: Path, readonly: bool) -> None:
    (file.parent / "cache").mkdir(parents=True)
    file.touch()
    with pytest.raises(StoreError, match=r"is empty \(0 bytes\).* restore a copy of it, or remove it to start anew"):
        Store(file, readonly)
    assert file.stat().st_size == 0


def test_a_database_whose_engine_was_killed_as_it_began_is_begun_again(file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    with Store(file) as store:
        assert store.query("SELECT * FROM trials") == []


def test_a_database_without_tables_holds_nothing_yet(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA journal_mode=WAL")
    with pytest.raises(StoreError, match="holds nothing yet; run djsb auto"):
        Store(file, readonly=True)


@pytest.mark.parametrize("readonly", [False, True])
def test_a_database_of_another_program_is_refused_and_not_changed(file: Path, readonly: bool) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE something(a)")
    before = file.read_bytes()
    with pytest.raises(StoreError, match="database of another program"):
        Store(file, readonly)
    assert file.read_bytes() == before


@pytest.mark.parametrize("part", [0.5, 0.05, 0.001])
def test_a_truncated_database_is_damaged_to_a_reader(file: Path, part: float) -> None:
    with Store(file) as store:
        for _ in range(100):
            store.event("k", "t" * 1000)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    with pytest.raises(StoreError, match="the file is damaged: restore a copy"), Store(file, readonly=True) as store:
        store.query("SELECT * FROM events")


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("metrics", {"trial": "/home/someone", "name": "a", "value": 1.0}),
        ("metrics", {"trial": "../../..", "name": "a", "value": 1.0}),
        ("metrics", {"trial": b"abcdef012345", "name": "a", "value": 1.0}),
        ("metrics", {"trial": "abcdef012345\n", "name": "a", "value": 1.0}),
        ("costs", {"id": "../x:1", "kind": "trial", "seconds": 1.0, "at": ""}),
        ("checkpoints", {"trial": "abcdef012345", "path": "/home", "bytes": 1, "kept": 1, "at": ""}),
        ("checkpoints", {"trial": "abcdef012345", "path": ".djsb/checkpoints/..", "bytes": 1, "kept": 1, "at": ""}),
        ("cycles", {"setup": "abcdef012345", "root": "abcdef012345", "cycle": 2, "parent": "abcdef012345",
                    "init": "../x", "spent": 0.0, "at": ""}),
    ],
)  # fmt: skip
def test_an_id_or_a_path_of_another_form_is_refused_on_reading(file: Path, table: str, row: dict[str, Any]) -> None:
    with Store(file) as store:
        store.put(table, row)
        with pytest.raises(StoreError, match="is damaged or was tampered with"):
            store.query(f"SELECT * FROM {table}")


LOCK = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(sys.argv[3])
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def locked(file: Path, seconds: float, first: str = "SELECT 1") -> Iterator[int]:
    """Another process, by its number, holds the database for so long, or to the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(file), str(seconds), first], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield other.pid
        other.kill()


@pytest.mark.parametrize("write", [
    lambda s: s.event("k", "t"), lambda s: s.execute(EVENT),
])  # fmt: skip
def test_a_locked_database_is_waited_for_and_the_wait_is_told(file: Path, write: Callable[[Store], None]) -> None:
    told: list[str] = []
    with Store(file, patience=Patience(file, 30, 0.3, told.append)) as store, locked(file, 1.5) as pid:
        write(store)
        assert len(store.query("SELECT * FROM events")) == 1
        assert told[0] == f"waiting for {file}, which process {pid} (python) has locked"
        assert "was locked for" in told[1] and len(told) == 2
        assert store.patience.waited > 0.3


def test_a_database_that_stays_locked_says_who_holds_it(file: Path) -> None:
    with Store(file, patience=Patience(file, 0.3)) as store:
        with locked(file, 60) as pid:
            holds = rf"locked; process {pid} \(python\) holds it: wait for it, or stop it"
            with pytest.raises(StoreError, match=holds):
                store.event("k", "t")
            with pytest.raises(StoreError, match=holds), store.transaction():
                raise AssertionError("nothing may begin")
            assert store.query("SELECT * FROM events") == []  # readers pass a writer
        store.event("k", "t")


def test_a_reader_and_one_who_opens_wait_for_a_database_that_is_held_alone(file: Path) -> None:
    Store(file).close()
    for readonly in (True, False):
        with locked(file, 1.0, "PRAGMA locking_mode = EXCLUSIVE"), Store(file, readonly) as store:
            assert store.query("SELECT * FROM events") == []
    with locked(file, 60, "PRAGMA locking_mode = EXCLUSIVE"), pytest.raises(StoreError, match="holds it: wait"):
        Store(file, True, Patience(file, 0.3))


READ = LOCK.replace('"BEGIN EXCLUSIVE"', '"BEGIN"').replace(
    "print(", 'db.execute("SELECT * FROM events").fetchall()\nprint('
)


def test_a_reader_that_keeps_the_log_long_is_told(file: Path) -> None:
    with Store(file) as store:
        store.event("k", "t")
        store.fold(0)
        assert store.query("SELECT * FROM events WHERE kind = 'database'") == []
        with subprocess.Popen(
            [sys.executable, "-c", READ, str(file), "60", "SELECT 1"], stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "locked\n"
            for _ in range(50):
                store.event("k", "t" * 4000)
            store.fold(0)
            (event,) = store.query("SELECT * FROM events WHERE kind = 'database'")
            assert f"as process {reader.pid} (python) reads since long; end that" in event["text"]
            reader.kill()


def test_a_transaction_that_reads_first_is_not_overtaken(file: Path) -> None:
    """SQLite does not wait where a reader turns writer after another has written: the lock is taken at the start."""
    with Store(file) as store, Store(file, patience=Patience(file, 0.2)) as other:
        with store.transaction():
            assert store.query("SELECT * FROM events") == []
            with pytest.raises(StoreError, match="locked"):
                other.event("k", "between")
            store.event("k", "t")
        assert len(other.query("SELECT * FROM events")) == 1


def test_a_database_that_may_not_grow_is_a_full_disk(file: Path) -> None:
    with Store(file) as store:
        pages = store.one("PRAGMA page_count")
        assert pages is not None
        store.execute(f"PRAGMA max_page_count = {pages['page_count'] + 1}")
        with pytest.raises(StoreError, match="full; the disk is full: free some space"), store.transaction():
            for _ in range(100):
                store.event("k", "t" * 1000)
        assert store.query("SELECT * FROM events") == []
        store.execute("PRAGMA max_page_count = 100000")
        store.event("k", "t")
        assert store.one("PRAGMA integrity_check") == {"integrity_check": "ok"}
