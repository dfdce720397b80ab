"""Results recorded elsewhere, ranked as a study's: of a CSV file, of MLflow or W&B."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.base.errors import DataError
from engine.evidence.chances import chances, shrunken
from engine.evidence.claims import Looks
from engine.evidence.comparison import Aggregate, numberless
from engine.evidence.effects import effects
from engine.journal.store import Row
from engine.records.metric import Metric, direction
from engine.track.recorded.contract import CONTROL, LENGTHS, Choice, Value
from engine.track.recorded.opening import read

LARGEST = 1e30  # values beyond it, or below its inverse, come from runs that went wrong
Key = tuple[str, int, int]  # pool, samples, horizon
Table = dict[Key, dict[int, dict[str, float | None]]]  # → seed → metric → value


def rank(
    file: Path | str,
    aggregate: Aggregate,
    lower: Sequence[str],
    confidence: float,
    higher: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
    choice: Choice = Choice(),  # noqa: B008  # frozen
    folder: Path = Path(),
) -> list[Row]:
    """The leaderboard of the pools of a file, or `mlflow:…`, or `wandb:…`, against the pool named control, best first.

    lower, higher: metrics that are better when low, and when high whatever their names say. confidence: of all
    intervals together. tell: is given the metrics' directions in words. choice: which columns hold
    what. folder: of the study whose MLflow store is meant where the environment names none.
    Raises: DataError.
    """
    table = _table(read(str(file), choice, folder, tell or (lambda _: None)))
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


def _with_directions(
    file: Path | str, names: Sequence[str], lower: Sequence[str], higher: Sequence[str]
) -> list[Metric]:
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


def _table(values: Sequence[Value]) -> Table:
    """Values by pool and seed.

    An empty, NaN, infinite or absurd one is None. Where the control has several numbers of samples (columns samples and
    horizon, as in `djsb export results`), they tell pools apart, each to be compared with its own control; elsewhere
    both are 0.
    Raises: DataError, which names the place.
    """
    apart = len({(v.samples, v.horizon) for v in values if v.pool == CONTROL}) > 1
    found: Table = {}
    for v in values:
        samples, horizon = (_whole(n, getattr(v, n) or "0", v.at) if apart else 0 for n in LENGTHS)
        runs = found.setdefault((v.pool, samples, horizon), {})
        at_seed = runs.setdefault(_whole("seed", v.seed, v.at), {})
        value = _value(v.value, v.at)
        if at_seed.setdefault(v.metric, value) != value:
            raise DataError(f"{v.at} has two different values; keep one of them")
    return found


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
