"""The tables of the database, step by step. docs/reference/store.md describes them."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

STEPS: list[Callable[[Database], None]] = []


@cache
def sqlite_utils() -> Any:
    """The library, imported when a database is first opened: the terminal UI starts without it and NumPy.

    It would import pandas where that is installed, half a second that every command would pay.
    """
    pandas = sys.modules.get("pandas")
    sys.modules["pandas"] = pandas  # type: ignore[assignment]
    import numpy as np
    import sqlite_utils

    if pandas is None:
        del sys.modules["pandas"]
    for kind in (
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.float16, np.float32
    ):  # fmt: skip
        sqlite3.register_adapter(kind, kind.item)  # SQLite would keep their bytes
    return sqlite_utils


def migrations() -> Callable[[Callable[[Database], None]], Callable[[Database], None]]:
    """Marks a step of the schema; steps apply in the order of the file."""

    def mark(step: Callable[[Database], None]) -> Callable[[Database], None]:
        STEPS.append(step)
        return step

    return mark


@cache
def schema() -> Migrations:
    """All steps of the schema."""
    found: Migrations = sqlite_utils().Migrations("djsb")
    for step in STEPS:
        found()(step)
    return found


@migrations()
def m001_first(db: Database) -> None:
    """The tables of version 0.1."""
    db.executescript("""
    CREATE TABLE studies(context TEXT PRIMARY KEY, name TEXT, dataset TEXT, evaluation TEXT, config TEXT NOT NULL,
        version TEXT NOT NULL, at TEXT NOT NULL);
    CREATE TABLE quarantine(dataset TEXT NOT NULL, row INTEGER NOT NULL, id TEXT, reason TEXT NOT NULL,
        PRIMARY KEY(dataset, row));
    CREATE TABLE statistics(id TEXT PRIMARY KEY, dataset TEXT NOT NULL, op TEXT NOT NULL, statistic TEXT NOT NULL,
        params TEXT NOT NULL, version TEXT NOT NULL, rows INTEGER NOT NULL, unreadable INTEGER, seconds REAL, at TEXT);
    CREATE TABLE statistic_chunks(statistic TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
        PRIMARY KEY(statistic, start));
    CREATE TABLE unreadable(statistic TEXT NOT NULL, row INTEGER NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY(statistic, row));
    CREATE TABLE pools(id TEXT PRIMARY KEY, content TEXT NOT NULL, label TEXT NOT NULL, kind TEXT NOT NULL, op TEXT,
        statistic TEXT, bucket TEXT, at TEXT NOT NULL);
    CREATE TABLE pool_cuts(context TEXT NOT NULL, op TEXT NOT NULL, statistic TEXT NOT NULL, bucket TEXT NOT NULL,
        pool TEXT NOT NULL, kept INTEGER NOT NULL, entropy REAL, verdict TEXT NOT NULL, reason TEXT,
        PRIMARY KEY(context, statistic, bucket));
    CREATE TABLE proposals(id TEXT PRIMARY KEY, context TEXT NOT NULL, origin TEXT NOT NULL, kind TEXT NOT NULL,
        stage TEXT NOT NULL, content TEXT NOT NULL, status TEXT NOT NULL, cost REAL, at TEXT NOT NULL);
    CREATE TABLE decisions(id INTEGER PRIMARY KEY, proposal TEXT NOT NULL, verdict TEXT NOT NULL, who TEXT NOT NULL,
        why TEXT NOT NULL, at TEXT NOT NULL);
    CREATE TABLE trials(id TEXT PRIMARY KEY, context TEXT NOT NULL, pool TEXT NOT NULL, seed INTEGER NOT NULL,
        init TEXT, samples INTEGER NOT NULL, stage TEXT NOT NULL, proposal TEXT NOT NULL, state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, estimate REAL, seconds REAL, device TEXT, started TEXT, finished TEXT,
        error TEXT);
    CREATE INDEX trials_by_pool ON trials(context, pool, seed);
    CREATE TABLE proposal_trials(proposal TEXT NOT NULL, trial TEXT NOT NULL, PRIMARY KEY(proposal, trial));
    CREATE TABLE metrics(trial TEXT NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY(trial, name));
    CREATE TABLE curve_points(trial TEXT NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
        PRIMARY KEY(trial, name, step));
    CREATE TABLE costs(id TEXT PRIMARY KEY, kind TEXT NOT NULL, trial TEXT, stage TEXT, device TEXT,
        samples INTEGER, seconds REAL NOT NULL, at TEXT NOT NULL);
    CREATE TABLE checkpoints(trial TEXT PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL, kept INTEGER NOT NULL,
        at TEXT NOT NULL);
    CREATE TABLE results(context TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY(context, name));
    CREATE TABLE events(id INTEGER PRIMARY KEY, level TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT,
        text TEXT NOT NULL, at TEXT NOT NULL);
    """)


@migrations()
def m002_race(db: Database) -> None:
    """Trials that stop before the end of their schedule, and pools that the race drops."""
    db.executescript("""
    ALTER TABLE trials ADD COLUMN horizon INTEGER;
    ALTER TABLE trials ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0;
    UPDATE trials SET horizon = samples;
    CREATE TABLE drops(context TEXT NOT NULL, stage TEXT NOT NULL, pool TEXT NOT NULL, share REAL NOT NULL,
        seeds INTEGER NOT NULL, chance REAL, reason TEXT NOT NULL, at TEXT NOT NULL, undone TEXT,
        PRIMARY KEY(context, stage, pool));
    """)


@migrations()
def m003_agent(db: Database) -> None:
    """What the language model was asked, and what that took."""
    db.executescript("""
    CREATE TABLE model_calls(id INTEGER PRIMARY KEY, context TEXT NOT NULL, purpose TEXT NOT NULL, model TEXT,
        read INTEGER NOT NULL, written INTEGER NOT NULL, estimated INTEGER NOT NULL, seconds REAL NOT NULL, cost REAL,
        outcome TEXT NOT NULL, at TEXT NOT NULL);
    """)


@migrations()
def m004_requests(db: Database) -> None:
    """What a UI asks of the running engine."""
    db.executescript("""
    CREATE TABLE requests(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, argument TEXT, who TEXT NOT NULL,
        at TEXT NOT NULL, taken TEXT, outcome TEXT);
    """)


@migrations()
def m005_cycles(db: Database) -> None:
    """Cycles after the first, each with the checkpoint that it starts from."""
    db.executescript("""
    CREATE TABLE cycles(context TEXT PRIMARY KEY, root TEXT NOT NULL, cycle INTEGER NOT NULL, parent TEXT NOT NULL,
        init TEXT NOT NULL, proposal TEXT, spent REAL NOT NULL, at TEXT NOT NULL);
    """)


@migrations()
def m006_duplicates(db: Database) -> None:
    """Rows that are like an earlier one."""
    db.executescript("""
    CREATE TABLE duplicates(dataset TEXT NOT NULL, row INTEGER NOT NULL, original INTEGER NOT NULL, op TEXT NOT NULL,
        PRIMARY KEY(dataset, row));
    """)


@migrations()
def m007_words(db: Database) -> None:
    """One word for one thing: what makes trials comparable is their setup, as docs and code call it."""
    db.executescript("""
    ALTER TABLE studies RENAME TO setups;
    ALTER TABLE setups RENAME COLUMN context TO setup;
    ALTER TABLE pool_cuts RENAME COLUMN context TO setup;
    ALTER TABLE proposals RENAME COLUMN context TO setup;
    ALTER TABLE trials RENAME COLUMN context TO setup;
    ALTER TABLE results RENAME COLUMN context TO setup;
    ALTER TABLE drops RENAME COLUMN context TO setup;
    ALTER TABLE model_calls RENAME COLUMN context TO setup;
    ALTER TABLE cycles RENAME COLUMN context TO setup;
    UPDATE proposals SET kind = 'transfer' WHERE kind = 'scale';
    UPDATE proposals SET content = json_replace(content, '$.kind', 'transfer')
        WHERE json_extract(content, '$.kind') = 'scale';
    UPDATE proposals SET content = json_replace(content, '$.suggestion.experiment.kind', 'transfer')
        WHERE json_extract(content, '$.suggestion.experiment.kind') = 'scale';
    UPDATE proposals SET content = json_remove(
        json_set(content, '$.cites', json_extract(content, '$.evidence')), '$.evidence')
        WHERE json_type(content, '$.evidence') IS NOT NULL;
    UPDATE proposals SET content = json_remove(
        json_set(content, '$.suggestion.cites', json_extract(content, '$.suggestion.evidence')),
        '$.suggestion.evidence')
        WHERE json_type(content, '$.suggestion.evidence') IS NOT NULL;
    UPDATE results SET content = replace(content, '"evidence": [', '"cites": [') WHERE name LIKE 'insight:%';
    UPDATE results SET name = 'model_scores' WHERE name = 'feedback';
    UPDATE results SET name = 'mapped:' || substr(name, 11) WHERE name LIKE 'rewritten:%';
    UPDATE costs SET kind = 'model_scores', id = 'model_scores' || substr(id, 9) WHERE kind = 'feedback';
    UPDATE events SET kind = 'model scores' WHERE kind = 'feedback';
    UPDATE costs SET kind = 'mapper', id = 'mapper:' || substr(id, 9) WHERE kind = 'rewrite';
    """)


@migrations()
def m008_sums(db: Database) -> None:
    """What each part of a statistic's column must sum up to."""
    db.executescript("ALTER TABLE statistic_chunks ADD COLUMN sum TEXT;")


@migrations()
def m009_file_hashes(db: Database) -> None:
    """What files hold, so that one which has not changed is not read again."""
    db.executescript(
        "CREATE TABLE file_hashes(name TEXT PRIMARY KEY, stamp TEXT NOT NULL, hash TEXT NOT NULL, at TEXT NOT NULL);"
    )


@migrations()
def m010_scored(db: Database) -> None:
    """What a language model said of a text."""
    db.executescript("CREATE TABLE scored(id TEXT PRIMARY KEY, value REAL, reason TEXT, at TEXT NOT NULL);")


@migrations()
def m011_procedures(db: Database) -> None:
    """How a trial was trained on its device."""
    db.executescript("ALTER TABLE trials ADD COLUMN procedure TEXT;")


@migrations()
def m012_pipelines(db: Database) -> None:
    """Jobs of pipelines, what they gave, and the variants of sweeps over them."""
    db.executescript("""
    CREATE TABLE pipeline_runs(run TEXT PRIMARY KEY, source TEXT NOT NULL, project TEXT NOT NULL,
        experiment TEXT NOT NULL, config TEXT NOT NULL, state TEXT NOT NULL, note TEXT, at TEXT NOT NULL, ended TEXT,
        folder TEXT NOT NULL);
    CREATE TABLE jobs(run TEXT NOT NULL, variant INTEGER NOT NULL, iteration INTEGER NOT NULL, pipeline TEXT NOT NULL,
        place INTEGER NOT NULL, seed INTEGER NOT NULL, label TEXT NOT NULL, phase TEXT NOT NULL, hook TEXT NOT NULL,
        component TEXT NOT NULL, state TEXT NOT NULL, result TEXT, settings TEXT NOT NULL, after TEXT NOT NULL,
        outputs TEXT NOT NULL, attempts INTEGER NOT NULL, reused INTEGER NOT NULL, seconds REAL, started TEXT,
        finished TEXT, error TEXT, PRIMARY KEY(run, variant, iteration, place, seed));
    CREATE TABLE job_results(result TEXT PRIMARY KEY, component TEXT NOT NULL, seconds REAL NOT NULL,
        tracked TEXT NOT NULL, files TEXT NOT NULL, at TEXT NOT NULL);
    CREATE TABLE job_outputs(result TEXT NOT NULL, place INTEGER NOT NULL, content TEXT NOT NULL,
        PRIMARY KEY(result, place));
    CREATE TABLE job_lines(id INTEGER PRIMARY KEY, result TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL);
    CREATE INDEX job_lines_by_result ON job_lines(result, id);
    CREATE TABLE job_points(result TEXT NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
        PRIMARY KEY(result, name, step));
    CREATE TABLE sweep_trials(run TEXT NOT NULL, variant INTEGER NOT NULL, params TEXT NOT NULL, state TEXT NOT NULL,
        objective REAL, steps TEXT NOT NULL, note TEXT, at TEXT NOT NULL, PRIMARY KEY(run, variant));
    """)


@migrations()
def m013_pool_scores(db: Database) -> None:
    """What the pools that a pipeline ranks were evaluated to."""
    db.executescript("""
    CREATE TABLE pool_scores(run TEXT NOT NULL, variant INTEGER NOT NULL, iteration INTEGER NOT NULL,
        place INTEGER NOT NULL, label TEXT NOT NULL, seed INTEGER NOT NULL, name TEXT NOT NULL, value REAL,
        PRIMARY KEY(run, variant, iteration, place, label, seed, name));
    """)


@migrations()
def m014_usage(db: Database) -> None:
    """What a trial took of the machine."""
    db.executescript("""
    CREATE TABLE usage(trial TEXT NOT NULL, name TEXT NOT NULL, peak REAL NOT NULL, mean REAL NOT NULL,
        latest REAL NOT NULL, seconds REAL NOT NULL, PRIMARY KEY(trial, name));
    """)
