"""Where things are: the console entry, and the names inside a study's folder."""

from __future__ import annotations

import os
from pathlib import Path

from engine.base.addresses import address, local_path
from engine.base.errors import StudyError
from engine.base.remote import is_remote

HOME = Path(__file__).resolve().parents[2]  # the repository, or the package that a wheel installs
ENTRY = next(HOME.glob("djsb.py"), HOME / "__main__.py")
STUDY_FILE = "study.yaml"
STATE_FOLDER = ".djsb"
DATABASE = "study.db"
MOST = 10_000  # entries of a folder that are looked at


def folder_of(path: Path) -> Path:
    """The folder that relative paths in a data set start from: itself, or the one that a file or pattern is in."""
    if is_remote(path):
        return path if path.is_dir() else path.parent
    return next(p for p in (path, *path.parents) if p.is_dir())


def resolve(folder: Path, path: str) -> Path:
    """A path of the study file, relative to the study's folder, or what an address like hf://datasets/A/B stands for.

    Raises: StudyError where `~` stands for no folder; DataError where what is at the address is not on this machine.
    """
    try:
        if name := address(path):
            return local_path(name)
        return (folder / Path(path).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:  # ValueError: a null character
        raise StudyError(f"{path!r} names no folder here ({error}); write it in full") from None


def is_study(folder: Path) -> bool:
    """True where a study is, or was run."""
    return (folder / STUDY_FILE).is_file() or (folder / STATE_FOLDER / DATABASE).is_file()


def studies_in(folder: Path) -> list[Path]:
    """The studies that lie in a folder, by name; one of them may be broken. Raises: OSError."""
    found = []
    with os.scandir(folder) as entries:
        for _, entry in zip(range(MOST), entries, strict=False):
            if not entry.name.startswith(".") and entry.is_dir() and is_study(Path(entry.path)):
                found.append(folder / entry.name)
    return sorted(found)


def holds_studies(folder: Path) -> bool:
    """True where a folder is no study itself and has some in it."""
    try:
        return folder.is_dir() and not is_study(folder) and bool(studies_in(folder))
    except OSError:
        return False  # whoever opens it says why it cannot be read
