"""Which files a path means, and which of several splits is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from engine.base.errors import DataError
from engine.base.remote import RemotePath, is_remote, look_at, remote_path
from engine.data.readers.braces import BRACES, expand
from engine.data.readers.formats import PACKED, SIDE_FILES, format_of
from engine.data.readers.pool_rows import rows_file

GLOB = re.compile(r"[*?\[]")
# as Hugging Face names the files of a split
SPLIT = re.compile(
    r"(?:^|[-._ /\d])(?:(?P<train>train(?:ing)?)|(?P<validation>validation|valid|val|dev)|(?P<test>test(?:ing)?|eval))"
    r"(?=$|[-._ /\d])",
    re.IGNORECASE,
)
SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5,}-of-\d{5,}")  # train_sft-00000-of-00003
OTHER = "without a split in their names"


def files_of(path: Path, split: str | None) -> list[Path]:
    """The files that a path means: itself, those of a folder, or those that fit a pattern like `train-*.parquet`.

    split: which of them are read. Raises: DataError when there is none, or they belong to several splits and none is
    named.
    """
    if path.is_dir():
        root, files = path, _of_folder(path)
    elif path.exists():
        if not path.is_file():
            raise DataError(f"{path} is a pipe or a device, not a file; give a file")
        root, files = path.parent, [path]
    elif not is_remote(path) and rows_file(path).is_file():
        root, files = path.parent, [rows_file(path)]
    else:
        files = _of_pattern(path)
        root = path.parent if is_remote(path) else Path(os.path.commonpath([file.parent for file in files]))
    return chosen(path, by_split(root, files), split, root)


def by_split(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Split → its files, by their names and those of the folders that they are in below root."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file, root)[0], []).append(file)
    return splits


def chosen(path: Path, splits: Mapping[str, list[Path]], split: str | None, root: Path | None = None) -> list[Path]:
    """The files of the split that is named, or of the only one. Raises: DataError that tells which there are.

    root: the folder in which names tell the splits, so that a pattern of one can be proposed.
    """
    if split is not None:
        if split not in splits:
            told = f"its files by split: {_told(splits)}"
            raise DataError(f"{path} has no file of the split {split}; {told}; name one of them, or none")
        return splits[split]
    if len(splits) == 1:
        return next(iter(splits.values()))
    if not splits:
        raise DataError(f"{path} has none of the files that its README.md names; fetch them")
    like = f", or give their files as the path, as {_pattern(splits[min(splits, key=_order)][0], root)}" if root else ""
    raise DataError(f"{path} holds files of several splits: {_told(splits)}; set dataset.split to one of them{like}")


class NoData(DataError):
    """A folder holds no data files."""


def _of_folder(folder: Path) -> list[Path]:
    """Its data files, which are of one format; where there are none, those of the folders in it."""
    files = [file for file in sorted(folder.iterdir()) if _is_data(file)]
    if not files:
        below = sorted(folder.rglob("*"))
        hidden = len(folder.parts)
        files = [f for f in below if not any(p.startswith(".") for p in f.parts[hidden:]) and _is_data(f)]
    formats = {format_of(file) for file in files}
    if "parquet" in formats and "tar" in formats:  # img2dataset writes both for each shard
        tables, shards = ([f for f in files if format_of(f) == kind] for kind in ("parquet", "tar"))
        return shards if {f.stem for f in tables} <= {f.stem for f in shards} else tables
    if "parquet" in formats:
        return [file for file in files if format_of(file) == "parquet"]
    if len(formats) > 1:
        names = ", ".join(sorted({file.name for file in files}, key=lambda n: (format_of(Path(n)) or "", n))[:4])
        raise DataError(f"{folder} holds files of several formats ({names} …); give one of them, or a pattern of some")
    if not files:
        raise NoData(
            f"{folder} holds no data set that can be read: no JSON lines, Parquet, CSV, Arrow or tar files; "
            "docs/guides/data.md tells what opens"
        )
    return files


def _is_data(file: Path) -> bool:
    side = file.name in SIDE_FILES or file.name.endswith("_stats.json")  # img2dataset's
    return format_of(file) is not None and not side and file.is_file()


def _of_pattern(path: Path) -> list[Path]:
    """The files that `train-*.parquet`, `data/**/*.jsonl` or `cc3m-{0000..0331}.tar` means, in its order."""
    names = expand(str(path)) if BRACES.search(str(path)) else [str(path)]
    files, missing = list[Path](), []
    meant: Iterable[Sequence[Path]]
    meant = _at_address(path, names) if isinstance(path, RemotePath) else map(_on_disk, names)
    for name, some in zip(names, meant, strict=True):
        here = [one for one in some if one.is_file()]
        files += here
        missing += [] if here else [name]
    if not files:
        raise DataError(f"no such file: {path}; check dataset.path and evaluation.path in the study")
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its {len(names)} files are missing, as {Path(missing[0]).name}; fetch them, or "
            "give a pattern of those that are there"
        )
    return list(dict.fromkeys(files))


def _on_disk(name: str) -> list[Path]:
    start = Path(Path(name).anchor)
    return sorted(start.glob(name.removeprefix(start.anchor))) if GLOB.search(name) else [Path(name)]


def _at_address(path: RemotePath, names: list[str]) -> list[list[RemotePath]]:
    """The files that each name means. Raises: DataError where a folder is a pattern."""
    if GLOB.search(str(path.parent)) or BRACES.search(str(path.parent)):
        raise DataError(f"{path}: at an address only the file's name may be a pattern; name the folder")
    paths = [remote_path(name) for name in names]
    look_at([one for one in paths if not GLOB.search(one.name)])
    return [sorted(path.parent.glob(one.name)) if GLOB.search(one.name) else [one] for one in paths]


def _split_of(file: Path, root: Path) -> tuple[str, str]:
    """(the split, the part of the path below root that tells it, or empty), the name before the folders."""
    for part in (_stem(file), *reversed(file.relative_to(root).parent.parts)):
        if word := SPLIT.search(part):
            shard = SHARD.fullmatch(part)
            plain = shard is None or shard[1].lower() == word[str(word.lastgroup)].lower()
            return str(word.lastgroup) if plain or shard is None else shard[1], part
    return OTHER, ""


def _stem(file: Path) -> str:
    """The name without what tells the format: `train` of `train.jsonl.gz`."""
    stem = file.stem
    return Path(stem).stem if file.suffix in PACKED else stem


def _pattern(file: Path, root: Path) -> Path:
    """What the files of this one's split are called."""
    split, part = _split_of(file, root)
    if part != _stem(file):
        return next(folder for folder in file.parents if folder.name == part)
    word = SPLIT.search(part)
    assert word is not None
    name = word[str(word.lastgroup)] if split == word.lastgroup else split
    return file.with_name(f"{'' if part.startswith(name) else '*'}{name}*{file.name[len(part) :]}")


def _order(split: str) -> int:
    known = ("train", "validation", "test", OTHER)
    return known.index(split) if split in known else 1


def _told(splits: Mapping[str, Sequence[Path]]) -> str:
    return ", ".join(f"{name} ({len(files)})" for name, files in sorted(splits.items()))
