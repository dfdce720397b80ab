"""Results recorded elsewhere, ranked as a study's: a CSV file with a pool, a seed, a metric and its value a line."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from engine.base.errors import DataError
from engine.evidence.chances import chances, shrunken
from engine.evidence.claims import Looks
from engine.evidence.comparison import Aggregate, numberless
from engine.evidence.effects import effects
from engine.journal.store import Row
from engine.records.metric import Metric, direction

COLUMNS = ("pool", "seed", "metric", "value")
CONTROL = "control"
LARGEST = 1e30  # values beyond it, or below its inverse, come from runs that went wrong
Key = tuple[str, int, int]  # pool, samples, horizon
Table = dict[Key, dict[int, dict[str, float | None]]]  # → seed → metric → value


def rank(
    file: Path,
    aggregate: Aggregate,
    lower: Sequence[str],
    confidence: float,
    higher: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> list[Row]:
    """The leaderboard of a file's pools against the pool named control, best first.

    lower, higher: metrics that are better when low, and when high whatever their names say. confidence: of all
    intervals together. tell: is given the metrics' directions in words.
    Raises: DataError.
    """
    table = read_results(file)
    names = sorted({name for runs in table.values() for values in runs.values() for name in values})
    metrics = _with_directions(file, names, lower, higher)
    if tell:
        assumed = [n for n in names if direction(n) is None and n not in (*lower, *higher)]
        turn = f"; {', '.join(assumed)}: nothing is known of it, --lower turns it" if assumed else ""
        tell(f"metrics: {', '.join(m.direction for m in metrics)}{turn}")
    pools = sorted(key for key in table if key[0] != CONTROL)
    if len(pools) == len(table):
        raise DataError(f"{file} has no pool named {CONTROL}; give this name to what the others are compared with")
    if not pools:
        raise DataError(f"{file} has no pool but {CONTROL}; add the results of the pools to compare with it")
    longest = {(pool, horizon): (pool, samples, horizon) for pool, samples, horizon in pools}
    by_name = {_name(key): key for key in longest.values()}
    found = effects(
        {_name(key): runs for key, runs in table.items()},
        {name: _name((CONTROL, key[1], key[2])) for name, key in by_name.items()},
        metrics,
        aggregate=aggregate,
        confidence=confidence,
        looks=Looks((max(2, *(len(table[key]) for key in longest.values())),)),
    )
    best, shrunk = chances(found), shrunken(found)
    return [
        {
            "pool": by_name[e.pool][0], "change": e.change, "std": e.std, "ci_low": e.ci_low, "ci_high": e.ci_high,
            "seeds": e.seeds, "metrics": dict(e.metrics), "verdict": e.verdict, "p_best": best.get(e.pool),
            "p": e.p, "q": e.q, "shrunk": shrunk.get(e.pool), "values": dict(e.values), "bound": e.bound,
            "skipped": [*e.skipped, *_left_out(table, by_name[e.pool], names)],
        }
        for e in found
    ]  # fmt: skip


def _with_directions(file: Path, names: Sequence[str], lower: Sequence[str], higher: Sequence[str]) -> list[Metric]:
    """The metrics. One that nothing is known of is better when high. Raises: DataError."""
    for option, given in (("--lower", lower), ("--higher", higher)):
        if unknown := [name for name in given if name not in names]:
            raise DataError(f"{option}: {file} has no metric {', '.join(unknown)}; its metrics are {', '.join(names)}")
    if both := [name for name in lower if name in higher]:
        raise DataError(f"{both[0]} is given to --lower and to --higher; give it to one of them")
    if silent := [n for n in names if direction(n) is False and n not in (*lower, *higher)]:
        raise DataError(
            f"{file}: {', '.join(silent)} is better when low by its name; add {_options('--lower', silent)}, "
            f"or {_options('--higher', silent)} if it is better when high"
        )
    return [Metric(name, name not in lower, -math.inf, math.inf) for name in names]


def _options(option: str, names: Sequence[str]) -> str:
    return " ".join(f"{option} {shlex.quote(name)}" for name in names)


def _name(key: Key) -> str:
    return "\n".join(map(str, key))


def _left_out(table: Table, key: Key, metrics: Sequence[str]) -> list[str]:
    """Where a pool, or its control, has no number; and the pool's seeds that the control lacks."""
    pool, control = table[key], table.get((CONTROL, key[1], key[2]), {})
    found = []
    for name, runs in ((key[0], pool), (CONTROL, control)):
        for metric in metrics:
            if seeds := [s for s in sorted(runs) if s not in numberless(runs) and runs[s].get(metric) is None]:
                found.append(f"{metric}: no number of {name} at seed {', '.join(map(str, seeds))}")
    if lone := sorted(set(pool) - set(control)):
        found.append(f"no result of {CONTROL} at seed {', '.join(map(str, lone))}")
    return found


def read_results(file: Path) -> Table:
    """The values of a CSV file with the columns pool, seed, metric and value, in any order, among others.

    An empty, NaN, infinite or absurd value is None. Where the control has several numbers of samples (columns
    samples and horizon, as in `djsb export results`), they tell pools apart, each to be compared with its own control;
    elsewhere both are 0.
    Raises: DataError, which names the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = _rows(file, text)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give a CSV file: {','.join(COLUMNS)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no CSV file in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise DataError(f"{file} holds no results; add lines of {','.join(COLUMNS)}")
    apart = len({(row["samples"], row["horizon"]) for _, row in rows if row["pool"] == CONTROL}) > 1
    found: Table = {}
    for line, row in rows:
        at = f"{file}, line {line}: {row['pool']}, seed {row['seed']}, {row['metric']}"
        samples, horizon = (_whole(n, row[n] or "0", at) if apart else 0 for n in ("samples", "horizon"))
        runs = found.setdefault((row["pool"], samples, horizon), {})
        values = runs.setdefault(_whole("seed", row["seed"], at), {})
        value = _value(row["value"], at)
        if values.setdefault(row["metric"], value) != value:
            raise DataError(f"{at} has two different values; keep one of them")
    return found


def _rows(file: Path, text: TextIO) -> list[tuple[int, dict[str, str]]]:
    """(line, column → field) of each line after the first."""
    reader = csv.DictReader(text, restval="")
    header = [name.strip() for name in reader.fieldnames or ()]
    if any(header.count(name) != 1 for name in COLUMNS):
        raise DataError(
            f"{file} needs a first line that names the columns {','.join(COLUMNS)}, each once, with commas between; "
            f"it begins with {','.join(header)[:80]!r}"
        )
    reader.fieldnames = header
    rows = []
    for fields in reader:
        if None in fields:
            raise DataError(f"{file}, line {reader.line_num}: more fields than columns; quote a field that has a comma")
        row = {name: fields.get(name, "").strip() for name in (*COLUMNS, "samples", "horizon")}
        if not row["pool"] or not row["metric"]:
            raise DataError(f"{file}, line {reader.line_num}: the pool or the metric is empty; name both")
        rows.append((reader.line_num, row))
    return rows


def _whole(name: str, text: str, at: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{at}: the {name} is no whole number; write e.g. 0, 1, 2") from None


def _value(text: str, at: str) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        raise DataError(f"{at}: {text[:40]!r} is no number; write e.g. 0.25, or leave it empty") from None
    return value if value == 0 or 1 / LARGEST <= abs(value) <= LARGEST else None
