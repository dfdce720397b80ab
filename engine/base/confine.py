"""Paths that come from elsewhere stay within their folder. A database, a cache or a message may name any."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePath

from engine.base.errors import StoreError


def inside(root: Path, name: str | PurePath) -> Path:
    """`root / name`, where that lies within root, links followed. name: an id, or a path relative to root.

    Raises: StoreError for a name that is empty, absolute or has `..`, and for a link that leads out of root.
    """
    path = _below(root, name)
    _check(root, path, name)
    return path


def remove(root: Path, name: str | PurePath) -> None:
    """Delete the file or tree `root / name`; of a link only the link goes. What is not there needs no deletion.

    Raises: StoreError as `inside` does; OSError where the system refuses to delete.
    """
    path = _below(root, name)
    if path.parent != root:
        _check(root, path.parent, name)
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return  # another process deleted it meanwhile


OTHERS = ("media", "checkpoints", "command")  # what lies deeper in these, a data set or a trainer has put there


def refuse_links(folder: Path, state: str) -> None:
    """Refuse a folder `state` of a study that leads out of it, or in which a link leads out: it is written to.

    Raises: StoreError that names the link.
    """
    root = inside(folder, state)
    _refuse_links(root, root)


def _refuse_links(root: Path, folder: Path) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                inside(root, Path(entry.path).relative_to(root))
            elif entry.is_dir() and folder.name not in OTHERS:
                _refuse_links(root, Path(entry.path))


def _below(root: Path, name: str | PurePath) -> Path:
    pure = PurePath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in str(pure):
        raise StoreError(
            f"{str(name)[:200]!r} is no name within {root}; the study comes from elsewhere or was tampered with: "
            "do not use it"
        )
    return root / pure


def _check(root: Path, path: Path, name: str | PurePath) -> None:
    try:
        target, base = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:
        raise StoreError(f"{path} cannot be followed ({error}); remove the links on its way") from error
    if target == base or not target.is_relative_to(base):
        raise StoreError(
            f"{str(name)[:200]!r} leads out of {root} by a link, to {target}; replace the link by what it leads to"
        )
