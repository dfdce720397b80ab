"""Where the samples of tar shards stand: an index that is made once, and holds no Python object a row."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.arrays import as_npy
from engine.base.parallel import run_chunks
from engine.data.readers.shard import Numbers, Part, look

IN_PROCESS = 200_000  # members that are looked at without workers
ARRAYS = ("keys", "ends", "firsts", "extensions", "offsets", "sizes")
INDEX = "index.json"


@dataclass(frozen=True)
class Facts:
    """What an index says beside its arrays, which are those of all shards that can be read, one after the other.

    files: those shards. rows: each one's last row, plus one. names: extensions. problems: row → why it is broken.
    shared: some key stands in several shards. bad: why the other shards cannot be read. left: what is no row. notes:
    how many shards have which oddity. content: hash of the names and sizes of all members, and of all texts.
    """

    files: tuple[str, ...]
    rows: tuple[int, ...]
    names: tuple[str, ...]
    problems: dict[int, str]
    shared: bool
    bad: tuple[str, ...]
    left: dict[str, int]
    notes: dict[str, int]
    content: str


def make_index(files: Sequence[Path], folder: Path) -> None:
    """Write the index of these shards into a folder."""
    looked = list(zip(files, _looked(files), strict=True))
    parts = [(file, part) for file, part in looked if isinstance(part, Part)]
    names = tuple(dict.fromkeys(name for _, part in parts for name in part.names))
    problems: dict[int, str] = {}
    rows, left, notes, content = [0], Counter[str](), Counter[str](), hashlib.blake2b(digest_size=8)
    for file, part in parts:
        problems |= {rows[-1] + row: why for row, why in part.problems.items()}
        rows.append(rows[-1] + len(part.ends))
        left, notes = left + part.left, notes + part.notes
        content.update(file.name.encode("utf-8", "surrogateescape") + b"\0" + part.content)
    for name, values in _joined([part for _, part in parts], names).items():
        (folder / f"{name}.npy").write_bytes(as_npy(values))
    hashes = np.concatenate([np.delete(part.hashes, list(part.problems)) for _, part in parts] or [np.zeros(0)])
    facts = Facts(
        tuple(str(file) for file, _ in parts), tuple(rows[1:]), names, problems,
        len(np.unique(hashes)) < len(hashes), tuple(part for _, part in looked if isinstance(part, str)),
        dict(left), dict(notes), content.hexdigest(),
    )  # fmt: skip
    (folder / INDEX).write_text(json.dumps(asdict(facts), allow_nan=False), encoding="utf-8")


def open_index(folder: Path) -> tuple[Facts, dict[str, Numbers]]:
    """An index that was made; its arrays are read when they are needed."""
    content: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    content["problems"] = {int(row): why for row, why in content["problems"].items()}
    arrays = {name: folder / f"{name}.npy" for name in ARRAYS}
    facts = Facts(**content)
    return facts, {name: np.load(file, mmap_mode="r") for name, file in arrays.items()} if facts.rows else {}


def _looked(files: Sequence[Path]) -> list[Part | str]:
    """The index of each shard, or why it cannot be read; in parallel where there are many members."""
    _, first = look((0, files[0]))
    jobs = list(enumerate(files))[1:]
    seen = 0 if isinstance(first, str) else len(first.sizes)
    members = seen * sum(f.stat().st_size for f in files) / max(1, files[0].stat().st_size)
    alone = members < IN_PROCESS or parent_process() is not None  # a worker starts no workers
    parts = dict(map(look, jobs) if alone else run_chunks(look, jobs, os.cpu_count() or 1))
    return [first, *(parts[number] for number, _ in jobs)]


def _joined(parts: Sequence[Part], names: Sequence[str]) -> dict[str, Numbers]:
    """The arrays of all shards: places and numbers go on from shard to shard."""
    numbers = {name: number for number, name in enumerate(names)}
    made: dict[str, list[Numbers]] = {name: [] for name in ARRAYS}
    letters = count = 0
    for part in parts:
        made["keys"].append(part.keys)
        made["ends"].append(part.ends + letters)
        made["firsts"].append(part.firsts[:-1] + count)
        made["extensions"].append(np.array([numbers[n] for n in part.names], np.int32)[part.extensions])
        made["offsets"].append(part.offsets)
        made["sizes"].append(part.sizes)
        letters, count = letters + len(part.keys), count + len(part.sizes)
    made["firsts"].append(np.array([count]))
    return {name: np.concatenate(values or [np.zeros(0, np.int64)]) for name, values in made.items()}
