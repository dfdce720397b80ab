"""What is read of results from elsewhere, and which of their columns hold it. What is ambiguous is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.base.errors import DataError
from engine.track.reading import SCORES

CONTROL = "control"
LENGTHS = ("samples", "horizon")
SHOWN = 12  # names that an error lists
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What a person says of the columns. control: the pool that the others are compared with.

    metrics: those that count. where: only records whose columns hold these values.
    """

    pool: str | None = None
    seed: str | None = None
    control: str | None = None
    metrics: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """A value as it was written. at: where it stands, for errors."""

    at: str
    pool: str
    seed: str
    metric: str
    value: str
    samples: str = ""
    horizon: str = ""


@dataclass(frozen=True)
class Record:
    """A run, or a line with one column a metric. facts: what tells runs apart. numbers: what may be a metric."""

    at: str
    facts: Mapping[str, str]
    numbers: Mapping[str, str]


def values_of(records: Sequence[Record], choice: Choice, origin: str) -> list[Value]:
    """The values of records. origin: names them in errors. Raises: DataError."""
    facts = _names(r.facts for r in records)
    kept = _only(records, choice.where, facts, origin)
    pool = _column("pool", choice.pool, facts, origin)
    seed = _column("seed", choice.seed, facts, origin)
    apart = {pool, seed, *LENGTHS, *choice.where}
    metrics = _metrics(kept, choice.metrics, apart, origin)
    values: list[Value] = []
    for record in kept:
        given = {name: record.numbers[name] for name in metrics if name in record.numbers}
        if not given:
            continue  # as a run above others, which measures nothing
        for name in (pool, seed):
            if not record.facts.get(name, "").strip():
                raise DataError(f"{record.at} has no {name}; give it one, or leave it out with --where")
        who, which, *lengths = (record.facts.get(name, "").strip() for name in (pool, seed, *LENGTHS))
        values += [
            Value(f"{record.at}: {who}, seed {which}, {name}", who, which, name, value.strip(), *lengths)
            for name, value in given.items()
        ]
    return as_control(values, choice.control, origin)


def as_control(values: list[Value], control: str | None, origin: str) -> list[Value]:
    """The values, with the pool that a person named as the control."""
    if control is None or control == CONTROL:
        return values
    pools = {v.pool for v in values}
    if control not in pools:
        raise DataError(f"--control: {origin} has no pool {control!r}; its pools are {listed(sorted(pools))}")
    if CONTROL in pools:
        raise DataError(f"--control {control}: {origin} has a pool named {CONTROL}, too; leave one out with --where")
    return [Value(**{**vars(v), "pool": CONTROL}) if v.pool == control else v for v in values]


def listed(names: Sequence[str]) -> str:
    """Names, as many as one line holds."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) or "none"


def _names(mappings: Iterable[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for one in mappings for name in one))


def _only(records: Sequence[Record], where: Mapping[str, str], facts: list[str], origin: str) -> list[Record]:
    for name, value in where.items():
        if name not in facts:
            raise DataError(f"--where {name}={value}: {origin} has no column {name}; it has {listed(facts)}")
    kept = [r for r in records if all(r.facts.get(name, "").strip() == value for name, value in where.items())]
    if not kept:
        raise DataError(f"{origin} holds no results" + (" that --where leaves" * bool(where)) + "; check what is in it")
    return kept


def _column(what: str, named: str | None, names: list[str], origin: str) -> str:
    if named is not None:
        if named not in names:
            raise DataError(f"--{what}: {origin} has no column {named}; it has {listed(names)}")
        return named
    alike = [name for name in names if name.strip().lower() == what]
    if len(alike) > 1:
        raise DataError(f"{origin}: {listed(alike)} may each be the {what}; say which: --{what} COLUMN")
    if not alike:
        raise DataError(f"{origin} has no column {what}; say which it is: --{what} COLUMN; it has {listed(names)}")
    return alike[0]


def _metrics(records: Sequence[Record], named: tuple[str, ...], apart: set[str], origin: str) -> list[str]:
    """Those that a person named, djsb's own scores, or the only one there is."""
    numbers = _names(r.numbers for r in records)
    if named:
        if unknown := [name for name in named if name not in numbers]:
            raise DataError(f"--metric: {origin} has no {listed(unknown)}; it has {listed(numbers)}")
        return list(named)
    if own := [name for name in numbers if name.startswith(SCORES)]:
        return own
    rest = [n for n in numbers if n not in apart and any(_is_number(r.numbers[n]) for r in records if n in r.numbers)]
    if len(rest) != 1:
        what = "holds no number" if not rest else f"has several numbers ({listed(rest)})"
        raise DataError(f"{origin} {what}; name those that count: --metric COLUMN, repeatable")
    return rest


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
