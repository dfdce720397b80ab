"""Dataset folders as they come from the Hugging Face hub: which files are which split, by the card's `configs`.

Nothing of a folder is run, and only files in it are read, whatever its card says.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from engine.base.errors import DataError, StudyError
from engine.base.yaml_text import parse_yaml, read_utf8
from engine.data.readers.splits import chosen, files_of

CARD = "README.md"
FRONT = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)


def card_files(folder: Path, split: str | None) -> list[Path] | None:
    """The files of the split that is read; None where no card says which files are which.

    Raises: DataError where several configurations or splits are there and none is named.
    """
    config = _config(folder)
    if config is None:
        return None
    start = folder / _inside(folder, str(config.get("data_dir") or "."))
    if config.get("data_files") is None:
        return files_of(start, split) if config.get("data_dir") else None
    return chosen(folder, _splits(folder, start, config["data_files"]), split)


def _config(folder: Path) -> dict[str, Any] | None:
    """The configuration that is read: the only one, or the one that the card calls its default."""
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        front = FRONT.match(read_utf8(file))
        card = parse_yaml(front[1], str(file)) if front else None
    except StudyError as error:
        raise DataError(f"{error}; or give the data files themselves as dataset.path") from None
    listed = card.get("configs") if isinstance(card, dict) else None
    configs = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if not configs:
        return None
    for config in configs:
        if len(configs) == 1 or config.get("default") is True or config.get("config_name") == "default":
            return config
    names = ", ".join(str(config.get("config_name")) for config in configs)
    splits = _splits(folder, folder, configs[0].get("data_files") or [])
    like = next((str(file) for files in splits.values() for file in files), f"{folder}/…")
    raise DataError(f"{folder} has the configurations {names}; give the files of one as dataset.path, as {like}")


def _splits(folder: Path, start: Path, data_files: Any) -> dict[str, list[Path]]:
    """Split → files, of what the card says, in any of the ways that `datasets` reads it."""
    from datasets.data_files import sanitize_patterns  # datasets takes a second to import

    try:
        patterns = sanitize_patterns(data_files)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{folder / CARD}: data_files cannot be read ({error}); give the files as dataset.path"
        ) from None
    found: dict[str, list[Path]] = {}
    for split, names in patterns.items():
        files = {f for n in names for f in start.glob(str(_inside(folder, str(n)))) if f.is_file()}
        if files:
            found[str(split)] = sorted(files)
    return found


def _inside(folder: Path, name: str) -> PurePosixPath:
    """A path in the folder. Raises: DataError for one that leads out of it, or elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "://" in name or "\0" in name:
        raise DataError(
            f"{folder / CARD} names files outside of the folder ({name[:100]!r}); give the files as dataset.path"
        )
    return path
