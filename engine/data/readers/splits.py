"""Which files a path means, and which of several splits is read."""

from __future__ import annotations

import re
from pathlib import Path

from engine.base.errors import DataError
from engine.data.readers.braces import BRACES, expand
from engine.data.readers.tar_members import PACKED

GLOB = re.compile(r"[*?\[]")
# as Hugging Face names the files of a split
SPLIT = re.compile(
    r"(?:^|[-._ /\d])(?:(?P<train>train(?:ing)?)|(?P<validation>validation|valid|val|dev)|(?P<test>test(?:ing)?|eval))"
    r"(?=$|[-._ /\d])",
    re.IGNORECASE,
)
OTHER = "without a split in their names"


def files_of(path: Path, split: str | None) -> list[Path]:
    """The files that a path means: itself, those of a folder, or those that fit a pattern like `train-*.parquet`.

    split: which of them are read. Raises: DataError when there is none, or they belong to several splits and none is
    named.
    """
    if path.is_dir():
        found = _of_folder(path)
    elif path.exists():
        found = [path]
    else:
        found = _of_pattern(path)
    splits: dict[str, list[Path]] = {}
    for file in found:
        splits.setdefault(_split_of(file), []).append(file)
    if split is not None:
        if split not in splits:
            raise DataError(f"{path} has no file of the split {split}, but of {_told(splits)}; name one of them")
        return splits[split]
    if len(splits) > 1:
        folder, first = path if path.is_dir() else path.parent, splits[min(splits, key=_order)][0]
        raise DataError(
            f"{path} holds files of several splits: {_told(splits)}; set dataset.split to one of them, or give their "
            f"files as the path, as {folder / _pattern(first)}"
        )
    return found


def _of_folder(path: Path) -> list[Path]:
    """Its Parquet files, or its tar shards, also where each has a Parquet file of metadata (as img2dataset writes)."""
    tables, shards = (sorted(path.glob(f"*{suffix}")) for suffix in (".parquet", ".tar"))
    if not {table.stem for table in tables} <= {shard.stem for shard in shards}:
        return tables
    if found := shards or [f for f in sorted(path.iterdir()) if f.name.endswith(PACKED) and f.is_file()]:
        return found
    raise DataError(f"{path} holds no Hugging Face dataset, no Parquet files and no tar shards; give a data file")


def _of_pattern(path: Path) -> list[Path]:
    """The files that `train-*.parquet` or `cc3m-{0000..0331}.tar` means."""
    found = sorted(path.parent.glob(path.name)) if GLOB.search(path.name) else []
    named = [Path(name) for name in expand(str(path))] if BRACES.search(str(path)) else []
    if missing := [file for file in named if not file.is_file()]:
        if len(missing) < len(named):
            raise DataError(
                f"{path}: {len(missing)} of its {len(named)} files are missing, as "
                f"{missing[0].name}; get them, or give the folder of those that are there"
            )
        named = []
    if not found + named:
        raise DataError(f"no such file: {path}; check dataset.path and evaluation.path in the study")
    return named or found


def _split_of(file: Path) -> str:
    found = SPLIT.search(file.stem)
    return str(found.lastgroup) if found else OTHER


def _pattern(file: Path) -> str:
    """What the files of this one's split are called."""
    found = SPLIT.search(file.stem)
    assert found is not None
    word = found[str(found.lastgroup)]
    return f"{'' if file.stem.startswith(word) else '*'}{word}*{file.suffix}"


def _order(split: str) -> int:
    return ("train", "validation", "test", OTHER).index(split)


def _told(splits: dict[str, list[Path]]) -> str:
    return ", ".join(f"{name} ({len(files)})" for name, files in sorted(splits.items()))
