"""How a demo's files are made, whole or not at all, and what its worlds draw by chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.base.errors import DataError
from engine.base.scratch import HERE, scratch

Rng = np.random.Generator
Line = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo lies. Media paths inside are relative to the folder of these files.

    train: one row a line, "id", "text" and media. test: the same, clean, with what the task is judged by; ids start at
    0 again. truth: {"id", "defects", …} of each training row, for looking, never for training.
    """

    train: Path
    test: Path
    truth: Path


def build(folder: Path, arguments: dict[str, Any], write: Callable[[Path], None], more: Sequence[str]) -> DemoFiles:
    """Let `write` fill `folder`, or leave the demo of the same arguments that is there.

    arguments: all that the bytes depend on; kept in demo.json, rows and seed among them. more: names of what it writes
    beside train.jsonl, test.jsonl and truth.jsonl. The folder appears whole or not at all.

    Raises: DataError if an argument is out of range or the folder holds anything else.
    """
    files = DemoFiles(*(folder / f"{name}.jsonl" for name in ("train", "test", "truth")))
    names = ["train.jsonl", "test.jsonl", "truth.jsonl", *more]
    counts = {name: n for name, n in arguments.items() if name not in ("version", "world")}
    if any(n < (0 if name == "seed" else 1) for name, n in counts.items()):
        told = ", ".join(f"{name}={n}" for name, n in counts.items())
        raise DataError(f"a demo of {told} cannot be made; use at least 1 row of each and a seed of 0 or more")
    if _is_finished(folder, arguments, names):
        return files
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch(target.parent / HERE) as building:
        draft = building / "demo"
        draft.mkdir()
        write(draft)
        (draft / "demo.json").write_text(json.dumps(arguments, allow_nan=False) + "\n", encoding="utf-8")
        try:
            draft.rename(target)  # an empty folder is replaced, a filled one never
        except OSError:
            if not _is_finished(folder, arguments, names):  # else another process made the same demo meanwhile
                raise
    return files


def _is_finished(folder: Path, arguments: dict[str, Any], names: Sequence[str]) -> bool:
    """True if the folder holds this demo, False if it is free; raises DataError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = "name another folder, or remove this one yourself"
    try:
        found = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{folder} exists and is not a demo; {remedy}") from None
    if found != arguments:
        raise DataError(f"{folder} holds a demo of other arguments ({found}, not {arguments}); {remedy}")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise DataError(f"{folder} holds a demo without its {', '.join(missing)}; {remedy}")
    return True


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """One JSON object a line."""
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_rows(
    folder: Path, rows: int, seeds: tuple[int, int], row: Callable[[int, Rng], Sequence[Line]], *names: str
) -> None:
    """Write what `row` gives by number and generator, a line of each file; it hangs on seeds and number only."""
    made = [row(number, np.random.default_rng((*seeds, number))) for number in range(rows)]
    for name, lines in zip(names, zip(*made, strict=True), strict=True):
        write_lines(folder / name, ({"id": number, **line} for number, line in enumerate(lines)))


def pick(rng: Rng, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def drawn(rates: dict[str, float], rng: Rng) -> list[str]:
    """The defects that a row gets, each drawn on its own."""
    return [name for name, rate in rates.items() if rng.random() < rate]
