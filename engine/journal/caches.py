"""The tables quarantine, statistics, statistic_chunks, unreadable, duplicates, file_hashes: of the data, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.journal.store import Store, now


@dataclass(frozen=True)
class BadRow:
    """A row that is left out. row: its number. id: as the data names it."""

    row: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class BadRows:
    """How many rows are left out for one reason. row: the first of them."""

    reason: str
    n: int
    row: int


@dataclass(frozen=True)
class Duplicate:
    """A row that is like an earlier one, the `original`, as an `op` says."""

    row: int
    original: int
    op: str


@dataclass(frozen=True)
class StatisticRun:
    """An OP's statistics on a dataset. id: of the cache. dataset: content hash. unreadable: rows. seconds: it took."""

    id: str
    dataset: str
    op: str
    statistic: str
    params: str
    version: str
    rows: int
    unreadable: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Unreadable:
    """Rows that an OP could not read. row, reason: of the first."""

    rows: int
    row: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Chunk:
    """A range of rows of a statistic's column. sum: of its bytes; None where an older djsb wrote it."""

    start: int
    stop: int
    sum: str | None


@dataclass(frozen=True)
class FileHash:
    """What a file holds. name: its path. stamp: what changes when the file does."""

    name: str
    stamp: str
    hash: str


def file_hashes(store: Store) -> list[FileHash]:
    """Of all files that were read."""
    return [FileHash(**row) for row in store.query("SELECT name, stamp, hash FROM file_hashes")]


def keep_hashes(store: Store, found: Iterable[FileHash]) -> None:
    """Write the hashes of files, in place of earlier ones. One transaction."""
    store.put("file_hashes", [{**asdict(f), "at": now()} for f in found])


def quarantine(store: Store, scan: str, bad: Iterable[BadRow]) -> None:
    """Write the rows that a scan leaves out, in place of what was there. One transaction."""
    with store.transaction():
        store.execute("DELETE FROM quarantine WHERE dataset = ?", (scan,))
        store.put("quarantine", [{"dataset": scan, **asdict(row)} for row in bad])


def bad_rows(store: Store, scan: str, most: int) -> list[BadRow]:
    """The first rows that a scan leaves out."""
    sql = "SELECT row, id AS named, reason FROM quarantine WHERE dataset = ? ORDER BY row LIMIT ?"  # no id of djsb's
    return [BadRow(r["row"], r["named"], r["reason"]) for r in store.query(sql, (scan, most))]


def worst_reasons(store: Store, scan: str) -> list[BadRows]:
    """The three most frequent reasons why a scan leaves rows out."""
    rows = store.query(
        "SELECT reason, COUNT(*) AS n, MIN(row) AS row FROM quarantine WHERE dataset=? GROUP BY "
        "substr(reason, 1, 14) ORDER BY n DESC LIMIT 3",
        (scan,),
    )
    return [BadRows(**row) for row in rows]


def reasons(store: Store, scan: str) -> list[tuple[str, int]]:
    """Every reason why a scan leaves rows out, and how many."""
    rows = store.query("SELECT reason, COUNT(*) AS n FROM quarantine WHERE dataset = ? GROUP BY reason", (scan,))
    return [(row["reason"], row["n"]) for row in rows]


def replace_duplicates(store: Store, removal: str, rows: Iterable[Duplicate]) -> None:
    """Write the rows that a search for duplicates leaves out, in place of what was there. One transaction."""
    with store.transaction():
        store.execute("DELETE FROM duplicates WHERE dataset = ?", (removal,))
        store.put("duplicates", [{"dataset": removal, **asdict(row)} for row in rows])


def duplicates(store: Store, removal: str) -> list[Duplicate]:
    """The rows that a search for duplicates left out."""
    rows = store.query("SELECT row, original, op FROM duplicates WHERE dataset = ? ORDER BY row", (removal,))
    return [Duplicate(**row) for row in rows]


def begin_statistic(store: Store, run: StatisticRun) -> None:
    """Write a run that has computed nothing yet; what an earlier one had is forgotten. One transaction."""
    with store.transaction():
        store.execute("DELETE FROM statistic_chunks WHERE statistic = ?", (run.id,))
        store.execute("DELETE FROM unreadable WHERE statistic = ?", (run.id,))
        store.put("statistics", {**asdict(run), "at": now()})


def chunks(store: Store, run: str) -> list[Chunk]:
    """The ranges of rows that a run has computed, in order."""
    sql = "SELECT start, stop, sum FROM statistic_chunks WHERE statistic = ? ORDER BY start"
    return [Chunk(**row) for row in store.query(sql, (run,))]


def add_chunk(
    store: Store, start: int, stop: int, sums: Mapping[str, str], seconds: Mapping[str, float],
    unreadable: Mapping[str, Sequence[tuple[int, str]]],
) -> None:  # fmt: skip
    """Count a chunk of rows, which is on the disk, as computed. Call inside a transaction.

    sums, seconds: by run. unreadable: (row, reason) by run.
    """
    store.put("statistic_chunks", [{"statistic": r, "start": start, "stop": stop, "sum": s} for r, s in sums.items()])
    for run, spent in seconds.items():
        rows = unreadable.get(run, ())
        store.put("unreadable", [{"statistic": run, "row": row, "reason": why} for row, why in rows])
        store.execute(
            "UPDATE statistics SET seconds = seconds + ?, unreadable = unreadable + ? WHERE id = ?",
            (spent, len(rows), run),
        )


def forget_chunks(store: Store, run: str, lost: Iterable[Chunk]) -> None:
    """These ranges are computed again. One transaction."""
    with store.transaction():
        for chunk in lost:
            store.execute("DELETE FROM statistic_chunks WHERE statistic = ? AND start = ?", (run, chunk.start))
            rows = store.execute(
                "DELETE FROM unreadable WHERE statistic = ? AND row >= ? AND row < ?", (run, chunk.start, chunk.stop)
            )
            store.execute("UPDATE statistics SET unreadable = unreadable - ? WHERE id = ?", (rows, run))


def statistic_runs(store: Store) -> list[StatisticRun]:
    """All runs of OPs."""
    sql = "SELECT id, dataset, op, statistic, params, version, rows, unreadable, seconds FROM statistics"
    return [StatisticRun(**row) for row in store.query(sql)]


def unreadable_of(store: Store, run: str) -> Unreadable:
    """How many rows a run could not read, and the first of them."""
    sql = "SELECT row, reason FROM unreadable WHERE statistic = ? ORDER BY row LIMIT 1"
    first = store.query(sql, (run,))
    [row] = store.query("SELECT count(*) AS n FROM unreadable WHERE statistic = ?", (run,))
    return Unreadable(row["n"], first[0]["row"], first[0]["reason"]) if first else Unreadable(0)


def unreadable_statistics(store: Store) -> list[StatisticRun]:
    """Runs whose OP could not read some rows."""
    return [run for run in statistic_runs(store) if run.unreadable > 0]


def rows_of(store: Store) -> int | None:
    """Rows of the data, as the statistics that were begun last have them; None before there are any."""
    row = store.one("SELECT rows FROM statistics ORDER BY at DESC LIMIT 1")
    return row["rows"] if row else None
